#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# For every network interface on the PCI bus: pings the peer at its other end with small and full frames, sends data through the peer's
# TCP echo service and compares what comes back, takes the interface down and up, unbinds and binds the driver, and once more. Exits 1 if
# something was lost or wrong, or a network device has no driver, or there is none.

status=0
found=0
peer=192.0.2.1
model=net
name=-
fail() {
	echo "$model: $name: $*"
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

# Runs a command until it is true, five seconds at most.
await() {
	tries=0
	until "$@"; do
		[ $tries -lt 50 ] || return 1
		tries=$((tries + 1))
		sleep 0.1
	done
}

linked() {
	[ "$(cat "$interface/operstate")" = up ]
}

up() {
	ifconfig "$name" 192.0.2.2 netmask 255.255.255.0 up || fail "up"
	await linked || fail "no link"
}

for function in /sys/bus/pci/devices/*; do
	case $(cat "$function/class") in
	0x0200*) found=1 ;;
	*) continue ;;
	esac
	# The interface belongs to the function itself or to the virtio device on it.
	interface=
	for entry in "$function"/net/* "$function"/virtio*/net/*; do
		[ ! -e "$entry" ] || interface=$entry
	done
	if [ -z "$interface" ]; then
		fail "${function##*/} has no interface: the driver is not loaded or not bound"
		continue
	fi
	name=${interface##*/}
	holder=${interface%/net/*}
	device=${holder##*/}
	driver=$(readlink -f "$holder/driver")
	model=$(basename "$driver" | tr _ -)
	up
	talk
	ifconfig "$name" down || fail "down"
	up
	talk
	echo "$device" > "$driver/unbind" && echo "$device" > "$driver/bind" || fail "bind again"
	await [ -e "$interface" ] || fail "no interface after binding again"
	up
	talk
	ifconfig "$name" down || fail "down"
	[ $status -ne 0 ] || echo "$model: $name: pinged and echoed"
done

if [ $found -eq 0 ]; then
	echo "net: there is no network device"
	status=1
fi
exit $status
