# What a guest does while random pages of its memory are closed: every line must come out the same as without.

set -e

work() {
	mkdir "$1"
	cd "$1"
	seq 1 20000 > numbers
	md5sum < numbers
	sort -r numbers | md5sum
	gzip -c numbers > numbers.gz
	gunzip -c numbers.gz | md5sum
	cat numbers numbers numbers > big
	dd if=big of=copy bs=4093 2> /dev/null
	cmp big copy
	tar -cf - big | tar -xOf - | md5sum
	n=0
	while [ $n -lt 80 ]; do
		/bin/busybox echo $n
		n=$((n + 1))
	done | md5sum
	# Copy on write, and pages that come and go.
	list=
	n=0
	while [ $n -lt 400 ]; do
		list="$list $n"
		n=$((n + 1))
	done
	(list="$list child"; echo "$list" | md5sum)
	echo "$list" | md5sum
	awk 'BEGIN { for (i = 0; i < 4000; i++) a[i % 97] += i * i; for (i = 0; i < 97; i++) s = (s * 31 + a[i]) % 1000003; print s }'
	cd ..
	rm -r "$1"
}

selftest() {
	for test in /sys/kernel/debug/ncdma/*/selftest; do
		echo all > "$test"
		cat "$test"
	done
}

cd /tmp
for round in 1 2; do
	echo "round $round"
	# Several at a time: each on a CPU of its own where there are more.
	work a > a.log &
	work b > b.log &
	wait
	cat a.log b.log
	selftest
	rmmod ncdma
	insmod /dmavet/ko/ncdma.ko
	selftest
done

echo "little memory left"
mount -o remount,size=90% /tmp
dd if=/dev/zero of=fill bs=1M count=48 2> /dev/null
md5sum < fill
work c
rm fill

if dmesg | grep -E 'WARNING|BUG|Oops|cut here|Call Trace|general protection|segfault|Bad page|stalls|soft lockup'; then
	echo "the kernel complained"
	exit 1
fi
echo "the kernel is content"
