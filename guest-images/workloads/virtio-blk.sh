#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Writes a pattern through every virtio disk and reads it back: through the page cache and around it, with several sizes, after a
# discard, and once more after the driver was unbound and bound again. A read-only disk is read. Exits 1 if a byte was wrong or
# there is no disk.

status=0
found=0
fail() {
	echo "virtio-blk: $name: $*"
	status=1
}

# 1 MiB of numbers, no two lines alike, and the same with other digits.
seq 1 170000 | head -c 1048576 > /tmp/blk-a
tr 0123456789 5678901234 < /tmp/blk-a > /tmp/blk-b

# write FILE BLOCK-SIZE FLAGS...: the whole disk's first MiB
write() {
	file=$1 size=$2
	shift 2
	dd if="$file" of="$disk" bs="$size" "$@" 2>/tmp/blk-err || fail "write in pieces of $size: $(tail -n 1 /tmp/blk-err)"
}

# check FILE BLOCK-SIZE FLAGS...: the first MiB from the disk itself, not from the page cache
check() {
	file=$1 size=$2
	shift 2
	echo 3 > /proc/sys/vm/drop_caches
	dd if="$disk" bs="$size" count=$((1048576 / size)) "$@" 2>/tmp/blk-err | cmp - "$file" || fail "read in pieces of $size: $(tail -n 1 /tmp/blk-err)"
}

for block in /sys/block/vd*; do
	[ -e "$block" ] || continue
	name=${block##*/}
	disk=/dev/$name
	device=$(readlink -f "$block/device")
	device=${device##*/}
	# The disk of another driver may have the same name.
	[ -e "/sys/bus/virtio/drivers/virtio_blk/$device" ] || continue
	found=1

	if [ "$(cat "$block/ro")" = 1 ]; then
		dd if="$disk" of=/tmp/blk-ro bs=65536 count=16 iflag=fullblock 2>/tmp/blk-err || fail "read: $(tail -n 1 /tmp/blk-err)"
		echo 3 > /proc/sys/vm/drop_caches
		head -c 1048576 "$disk" | cmp - /tmp/blk-ro || fail "two reads differ"
		echo "virtio-blk: $name: read-only, read twice"
		continue
	fi

	write /tmp/blk-a 65536 conv=fsync
	check /tmp/blk-a 65536
	write /tmp/blk-b 16384 oflag=direct
	check /tmp/blk-b 131072 iflag=direct
	check /tmp/blk-b 4096
	dd if=/tmp/blk-a of="$disk" bs=512 count=16 oflag=direct 2>/tmp/blk-err || fail "write in sectors: $(tail -n 1 /tmp/blk-err)"
	dd if="$disk" bs=512 count=16 iflag=direct 2>/dev/null | cmp -n 8192 - /tmp/blk-a || fail "read in sectors"

	blkdiscard -o 0 -l 65536 "$disk" || fail "discard"
	echo 3 > /proc/sys/vm/drop_caches
	dd if=/dev/zero bs=65536 count=1 2>/dev/null | cmp -n 65536 - "$disk" || fail "discarded bytes are not zero"

	write /tmp/blk-a 65536 conv=fsync
	echo "$device" > /sys/bus/virtio/drivers/virtio_blk/unbind && echo "$device" > /sys/bus/virtio/drivers/virtio_blk/bind || fail "bind again"
	tries=0
	until [ -b "$disk" ] || [ $tries -eq 50 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	check /tmp/blk-a 65536 iflag=direct
	[ $status -ne 0 ] || echo "virtio-blk: $name: written, read back and compared"
done

if [ $found -eq 0 ]; then
	echo "virtio-blk: no disk: the driver is not loaded or not bound"
	status=1
fi
exit $status
