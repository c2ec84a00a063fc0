#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# First process of a guest without dmavet: the modules and the workload that /init runs under it, told on the console.

B=/bin/busybox
# QEMU's own network has no echo service at the address it pings from.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=dumb ECHO=192.0.2.7

$B mkdir -p /proc /sys /dev /run /tmp
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev 2>/dev/null
$B mount -t tmpfs tmp /tmp
exec > /dev/console 2>&1

off() {
	$B poweroff -f
	while :; do $B sleep 1000; done
}

loaded=
while read -r kind name parameters; do
	[ -n "$name" ] || continue
	$B insmod "/dmavet/ko/$name.ko" $parameters || { echo "dmavet-plain: no module $name"; off; }
	loaded="$name $loaded"
done < /dmavet/modules

$B ifconfig lo up
cd /
$B sh /dmavet/workload < /dev/null
echo "dmavet-plain: workload $?"
for name in $loaded; do
	$B rmmod "$name" 2>/dev/null
done
echo "dmavet-plain: end"
off
