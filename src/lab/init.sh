#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# First process of the lab's outer machine: loads KVM and the channels, runs the jobs one after another, sends what they leave.
#
# Ports (see channel.rs): 1 control, lines; 2 the jobs' stdout; 3 their stderr; 4 their run directories; 5 their traces.
# /lab/jobs/N is the command line of job N, /lab/jobs/N.dir names its run directory, /lab/marker ends a job's output.

B=/bin/busybox
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb

$B mkdir -p /proc /sys /dev /run /tmp /root
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mkdir -p /dev/shm
$B mount -t tmpfs shm /dev/shm

# Guests run several times faster in huge pages: most exits of a nested boot are page faults.
echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled 2> /dev/null

die() {
	echo "dmavet-lab: $*" > /dev/console
	$B poweroff -f
	while :; do $B sleep 1000; done
}

while read -r module; do
	$B insmod "/lab/ko/$module.ko" 2> /tmp/err || die "module $module: $($B cat /tmp/err)"
done < /lab/modules

# The ports appear a moment after their driver.
tries=0
until [ -c /dev/vport0p1 ] && [ -c /dev/vport0p2 ] && [ -c /dev/vport0p3 ] && [ -c /dev/vport0p4 ] && [ -c /dev/vport0p5 ]; do
	tries=$((tries + 1))
	[ $tries -lt 500 ] || die "the channels to the host did not appear"
	$B usleep 10000
done
exec 3> /dev/vport0p1 4> /dev/vport0p2 5> /dev/vport0p3 6> /dev/vport0p4

[ -c /dev/kvm ] || die "kvm-amd is loaded but there is no /dev/kvm"
echo up >&3

# Tells a job that takes long from a machine that hangs.
(exec 4>&- 5>&- 6>&-; while $B sleep 2; do echo alive; done >&3) &

marker=$($B cat /lab/marker)
count=$($B cat /lab/count)
job=0
while [ $job -lt "$count" ]; do
	directory=$($B cat /lab/jobs/$job.dir; echo x)
	directory=${directory%x}
	$B mkdir -p "$directory"
	echo "start $job" >&3
	read -r begun rest < /proc/uptime
	$B sh /lab/jobs/$job < /dev/null 3>&- 6>&- >&4 2>&5 4>&- 5>&-
	code=$?
	read -r ended rest < /proc/uptime
	echo "end $job $code $begun $ended" >&3
	echo "$marker$job" >&4
	echo "$marker$job" >&5
	echo "$marker$job" > /dev/vport0p5
	if $B tar -C "$directory" -cf /lab/tar . 2> /tmp/err; then
		echo "$job $($B stat -c %s /lab/tar)" >&6
		$B cat /lab/tar >&6
	else
		echo "$job 0" >&6
		echo "fail run directory of job $job: $($B cat /tmp/err)" >&3
	fi
	$B rm -f /lab/tar
	job=$((job + 1))
done
echo bye >&3
# The host ends the machine.
while :; do $B sleep 1000; done
