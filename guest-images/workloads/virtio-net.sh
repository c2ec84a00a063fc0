#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# For every virtio network interface: pings the peer at its other end with small and full frames, sends data through the peer's TCP echo
# service and compares what comes back, takes the interface down and up, unbinds and binds the driver, and once more. Exits 1 if
# something was lost or wrong or there is no interface.

status=0
found=0
peer=192.0.2.1
fail() {
	echo "virtio-net: $name: $*"
	status=1
}

seq 1 10000 | head -c 32768 > /tmp/net-sent

talk() {
	for size in 16 1000 1472; do
		ping -q -c 2 -i 0.1 -W 5 -s $size $peer > /tmp/net-ping || fail "ping of $size bytes: $(tail -n 1 /tmp/net-ping)"
	done
	nc -w 5 $peer 7 < /tmp/net-sent > /tmp/net-echo || fail "the echo service"
	cmp /tmp/net-sent /tmp/net-echo || fail "the echo is not what was sent"
}

up() {
	ifconfig "$name" 192.0.2.2 netmask 255.255.255.0 up || fail "up"
}

for interface in /sys/class/net/*; do
	name=${interface##*/}
	device=$(readlink -f "$interface/device" 2>/dev/null) || continue
	device=${device##*/}
	[ -e "/sys/bus/virtio/drivers/virtio_net/$device" ] || continue
	found=1
	up
	talk
	ifconfig "$name" down || fail "down"
	up
	talk
	echo "$device" > /sys/bus/virtio/drivers/virtio_net/unbind && echo "$device" > /sys/bus/virtio/drivers/virtio_net/bind || fail "bind again"
	tries=0
	until [ -e "$interface" ] || [ $tries -eq 50 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	up
	talk
	ifconfig "$name" down || fail "down"
	[ $status -ne 0 ] || echo "virtio-net: $name: pinged and echoed"
done

if [ $found -eq 0 ]; then
	echo "virtio-net: no interface: the driver is not loaded or not bound"
	status=1
fi
exit $status
