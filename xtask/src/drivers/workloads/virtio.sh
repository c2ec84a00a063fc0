#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# A little of everything, for one run of many: a disk is written and read through the page cache, around it and after a discard, an
# interface sends and receives; both are unbound and bound once. Exits 1 if something was lost or wrong or there is nothing to use.

status=0
found=0
fail() {
	echo "$name: $*"
	status=1
}
rebind() {
	echo "$device" > "/sys/bus/virtio/drivers/$1/unbind" && echo "$device" > "/sys/bus/virtio/drivers/$1/bind" || fail "bind again"
	tries=0
	until [ -e "$2" ] || [ $tries -eq 20 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
}

seq 1 20000 | head -c 65536 > /tmp/a
seq 20001 40000 | head -c 65536 > /tmp/b
head -c 16384 /tmp/a > /tmp/c

same() {
	echo 3 > /proc/sys/vm/drop_caches
	timeout 20 dd if="$disk" bs="$2" count=$((65536 / $2)) $3 2>/dev/null | cmp - "$1" || fail "read in pieces of $2"
}

for device in /sys/bus/virtio/drivers/virtio_blk/virtio*; do
	[ -e "$device/block" ] || continue
	found=1
	name=$(ls "$device/block")
	device=${device##*/}
	disk=/dev/$name
	timeout 20 dd if=/tmp/a of="$disk" bs=16384 conv=fsync 2>/dev/null || fail "write"
	same /tmp/a 16384
	timeout 20 dd if=/tmp/b of="$disk" bs=32768 oflag=direct 2>/dev/null || fail "write around the cache"
	same /tmp/b 65536 iflag=direct
	timeout 20 dd if=/tmp/a of="$disk" bs=512 count=4 oflag=direct 2>/dev/null || fail "write in sectors"
	timeout 20 dd if="$disk" bs=512 count=4 iflag=direct 2>/dev/null | cmp -n 2048 - /tmp/a || fail "read in sectors"
	timeout 20 blkdiscard -o 0 -l 32768 "$disk" || fail "discard"
	rebind virtio_blk "$disk"
	timeout 20 dd if="$disk" bs=32768 skip=1 count=1 iflag=direct 2>/dev/null | cmp -n 32768 - /tmp/b 0 32768 || fail "read after binding"
done

up() {
	ifconfig "$name" 192.0.2.2 netmask 255.255.255.0 up || fail "up"
}
talk() {
	for size in 16 1472; do
		ping -q -c 1 -W 5 -s $size 192.0.2.1 > /tmp/ping || fail "ping of $size bytes"
	done
	timeout 20 nc -w 5 192.0.2.1 7 < /tmp/c | cmp - /tmp/c || fail "the echo is not what was sent"
}

for interface in /sys/class/net/*; do
	device=$(readlink -f "$interface/device" 2>/dev/null) || continue
	device=${device##*/}
	[ -e "/sys/bus/virtio/drivers/virtio_net/$device" ] || continue
	found=1
	name=${interface##*/}
	up
	talk
	ifconfig "$name" down || fail "down"
	up
	rebind virtio_net "$interface"
	up
	talk
done

[ $found -eq 1 ] || { echo "no disk and no interface"; status=1; }
exit $status
