#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# A little of everything, for one run of many: every disk is written and read through the page cache, around it and after a discard,
# every interface sends and receives; their drivers are unbound and bound once. Exits 1 if something was lost or wrong or there is
# nothing to use.

status=0
found=0
fail() {
	echo "$name: $*"
	status=1
}

# below CLASS-DEVICE: the device on its bus that a driver is bound to, as DRIVER-FOLDER DEVICE-NAME
below() {
	at=$(readlink -f "$1/device" 2>/dev/null) || return 1
	# A controller of a class of its own may stand between.
	[ -e "$at/driver" ] || at=$(readlink -f "$at/device" 2>/dev/null) || return 1
	[ -e "$at/driver" ] || return 1
	driver=$(readlink -f "$at/driver")
	device=${at##*/}
}
rebind() {
	echo "$device" > "$driver/unbind" && echo "$device" > "$driver/bind" || fail "bind again"
	tries=0
	until [ -e "$1" ] || [ $tries -eq 50 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
}

seq 1 20000 | head -c 65536 > /tmp/a
seq 20001 40000 | head -c 65536 > /tmp/b
head -c 16384 /tmp/a > /tmp/c

same() {
	echo 3 > /proc/sys/vm/drop_caches
	timeout 60 dd if="$disk" bs="$2" count=$((65536 / $2)) $3 2>/dev/null | cmp - "$1" || fail "read in pieces of $2"
}

for block in /sys/block/vd* /sys/block/nvme*; do
	below "$block" || continue
	found=1
	name=${block##*/}
	disk=/dev/$name
	timeout 60 dd if=/tmp/a of="$disk" bs=16384 conv=fsync 2>/dev/null || fail "write"
	same /tmp/a 16384
	timeout 60 dd if=/tmp/b of="$disk" bs=32768 oflag=direct 2>/dev/null || fail "write around the cache"
	same /tmp/b 65536 iflag=direct
	timeout 60 dd if=/tmp/a of="$disk" bs=512 count=4 oflag=direct 2>/dev/null || fail "write in sectors"
	timeout 60 dd if="$disk" bs=512 count=4 iflag=direct 2>/dev/null | cmp -n 2048 - /tmp/a || fail "read in sectors"
	timeout 60 blkdiscard -o 0 -l 32768 "$disk" || fail "discard"
	rebind "$disk"
	timeout 60 dd if="$disk" bs=32768 skip=1 count=1 iflag=direct 2>/dev/null | cmp -n 32768 - /tmp/b 0 32768 || fail "read after binding"
done

up() {
	ifconfig "$name" 192.0.2.2 netmask 255.255.255.0 up || fail "up"
	# A link may take seconds to come up; what is sent before is lost.
	tries=0
	until [ "$(cat "/sys/class/net/$name/carrier")" = 1 ] || [ $tries -eq 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
}
talk() {
	for size in 16 1472; do
		ping -q -c 1 -W 10 -s $size 192.0.2.1 > /tmp/ping || fail "ping of $size bytes"
	done
	timeout 60 nc -w 20 "${ECHO:-192.0.2.1}" 7 < /tmp/c | cmp - /tmp/c || fail "the echo is not what was sent"
}

for interface in /sys/class/net/*; do
	below "$interface" || continue
	found=1
	name=${interface##*/}
	up
	talk
	ifconfig "$name" down || fail "down"
	up
	rebind "$interface"
	up
	talk
	# Another one has the same peer.
	ifconfig "$name" down || fail "down"
done

[ $found -eq 1 ] || { echo "no disk and no interface"; status=1; }
exit $status
