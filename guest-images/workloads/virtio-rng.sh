#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Reads /dev/hwrng from every virtio entropy device: whole reads, no two alike, none of zeros; and again after the driver was unbound
# and bound. Exits 1 if that is not so or there is no device.

status=0
found=0
rng=/sys/class/misc/hw_random
fail() {
	echo "virtio-rng: $name: $*"
	status=1
}

read_twice() {
	echo "$name" > $rng/rng_current || fail "cannot be chosen"
	for copy in a b; do
		dd if=/dev/hwrng of=/tmp/rng-$copy bs=256 count=8 iflag=fullblock 2>/tmp/rng-err || fail "read: $(tail -n 1 /tmp/rng-err)"
		[ "$(wc -c < /tmp/rng-$copy)" = 2048 ] || fail "short read"
	done
	cmp -s /tmp/rng-a /tmp/rng-b && fail "two reads are alike"
	# More than 32 zeros in a row are no accident.
	for copy in a b; do
		od -An -v -tx1 -w32 /tmp/rng-$copy | grep -qv '[1-9a-f]' && fail "32 bytes are zero"
	done
}

for name in $(cat $rng/rng_available 2>/dev/null); do
	case "$name" in
	virtio_rng.*) ;;
	*) continue ;;
	esac
	found=1
	read_twice
done

cd /sys/bus/virtio/drivers/virtio_rng 2>/dev/null && for device in virtio*; do
	[ -e "$device" ] || continue
	echo "$device" > unbind && echo "$device" > bind || fail "bind again"
done
for name in $(cat $rng/rng_available 2>/dev/null); do
	case "$name" in
	virtio_rng.*) read_twice ;;
	esac
done

if [ $found -eq 0 ]; then
	echo "virtio-rng: no device: the driver is not loaded or not bound"
	status=1
fi
[ $status -ne 0 ] || echo "virtio-rng: read and compared"
exit $status
