# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# What the workloads of all block devices do. A workload names its model, includes this, and calls `disks` with the folder of its driver.
#
# Each disk is written and read back: through the page cache and around it, with several sizes, through a file system, after a discard,
# and once more after its driver was unbound in the middle of reads and writes and bound again. A read-only disk is read.

status=0
found=0
fail() {
	echo "$model: $name: $*"
	status=1
}

# 1 MiB of numbers, no two lines alike, and the same with other digits.
seq 1 170000 | head -c 1048576 > /tmp/disk-a
tr 0123456789 5678901234 < /tmp/disk-a > /tmp/disk-b

# write FILE BLOCK-SIZE FLAGS...: the whole disk's first MiB
write() {
	file=$1 size=$2
	shift 2
	dd if="$file" of="$disk" bs="$size" "$@" 2>/tmp/disk-err || fail "write in pieces of $size: $(tail -n 1 /tmp/disk-err)"
}

# check FILE BLOCK-SIZE FLAGS...: the first MiB from the disk itself, not from the page cache
check() {
	file=$1 size=$2
	shift 2
	echo 3 > /proc/sys/vm/drop_caches
	dd if="$disk" bs="$size" count=$((1048576 / size)) "$@" 2>/tmp/disk-err | cmp - "$file" || fail "read in pieces of $size: $(tail -n 1 /tmp/disk-err)"
}

# find_disk DEVICE: sets name and disk to those of the device's disk, which comes some time after its driver was bound
find_disk() {
	tries=0
	while [ $tries -lt 100 ]; do
		for block in /sys/block/*; do
			case $(readlink -f "$block") in
			*/"$1"/*)
				name=${block##*/}
				disk=/dev/$name
				[ -b "$disk" ] && return
				;;
			esac
		done
		sleep 0.1
		tries=$((tries + 1))
	done
	name=$1
	fail "no disk came"
	return 1
}

read_only() {
	dd if="$disk" of=/tmp/disk-ro bs=65536 count=16 iflag=fullblock 2>/tmp/disk-err || fail "read: $(tail -n 1 /tmp/disk-err)"
	echo 3 > /proc/sys/vm/drop_caches
	head -c 1048576 "$disk" | cmp - /tmp/disk-ro || fail "two reads differ"
}

raw() {
	write /tmp/disk-a 65536 conv=fsync
	check /tmp/disk-a 65536
	write /tmp/disk-b 16384 oflag=direct
	check /tmp/disk-b 1048576 iflag=direct
	dd if=/tmp/disk-a of="$disk" bs=512 count=16 oflag=direct 2>/tmp/disk-err || fail "write in sectors: $(tail -n 1 /tmp/disk-err)"
	dd if="$disk" bs=512 count=16 iflag=direct 2>/dev/null | cmp -n 8192 - /tmp/disk-a || fail "read in sectors"
}

discard() {
	blkdiscard -o 0 -l 65536 "$disk" || fail "discard"
	echo 3 > /proc/sys/vm/drop_caches
	dd if=/dev/zero bs=65536 count=1 2>/dev/null | cmp -n 65536 - "$disk" || fail "discarded bytes are not zero"
}

# The ext4 driver mounts ext2, too.
file_system() {
	if ! grep -q 'ext[24]$' /proc/filesystems; then
		echo "$model: $name: this kernel knows no ext2: no file system was made"
		return
	fi
	kib=$(($(cat "/sys/block/$name/size") / 2))
	if [ $kib -lt 4096 ]; then
		echo "$model: $name: of $kib KiB: no file system was made"
		return
	fi
	[ $kib -lt 16384 ] || kib=16384
	mkdir -p /tmp/disk-mount
	mke2fs -F -b 4096 "$disk" $kib > /tmp/disk-err 2>&1 || fail "mke2fs: $(tail -n 1 /tmp/disk-err)"
	mount -t ext2 "$disk" /tmp/disk-mount || { fail "mount"; return; }
	dd if=/tmp/disk-a of=/tmp/disk-mount/a bs=65536 conv=fsync 2>/tmp/disk-err || fail "write of a file: $(tail -n 1 /tmp/disk-err)"
	cp /tmp/disk-b /tmp/disk-mount/b && sync || fail "write of a second file"
	umount /tmp/disk-mount || { fail "umount"; return; }
	echo 3 > /proc/sys/vm/drop_caches
	mount -t ext2 "$disk" /tmp/disk-mount || { fail "second mount"; return; }
	for file in a b; do
		cmp /tmp/disk-mount/$file /tmp/disk-$file || fail "file $file"
	done
	rm /tmp/disk-mount/a
	fstrim /tmp/disk-mount || fail "fstrim"
	echo 3 > /proc/sys/vm/drop_caches
	cmp /tmp/disk-mount/b /tmp/disk-b || fail "file b after the discard of file a"
	umount /tmp/disk-mount || fail "second umount"
}

# rebind DRIVER DEVICE: while the disk is read and written, whose reads and writes may fail from then on
rebind() {
	dd if="$disk" of=/dev/null bs=65536 iflag=direct 2>/dev/null &
	reader=$!
	dd if=/tmp/disk-b of="$disk" bs=4096 oflag=direct 2>/dev/null &
	writer=$!
	sleep 0.2
	echo "$2" > "$1/unbind" || fail "unbind"
	wait $reader $writer
	echo "$2" > "$1/bind" || fail "bind again"
}

# disks DRIVER: all disks of a driver's devices
disks() {
	for link in "$1"/*; do
		[ -e "$link/subsystem" ] || continue
		device=${link##*/}
		found=1
		find_disk "$device" || continue
		if [ "$(cat "/sys/block/$name/ro")" = 1 ]; then
			read_only
			[ $status -ne 0 ] || echo "$model: $name: read-only, read twice"
			continue
		fi
		raw
		discard
		file_system
		rebind "$1" "$device"
		find_disk "$device" || continue
		write /tmp/disk-a 65536 conv=fsync
		check /tmp/disk-a 65536 iflag=direct
		[ $status -ne 0 ] || echo "$model: $name: written, read back and compared"
	done
	if [ $found -eq 0 ]; then
		echo "$model: no disk: the driver is not there or not bound"
		status=1
	fi
	exit $status
}
