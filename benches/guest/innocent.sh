# Work that has nothing to do with the device. What counts is the time between the phases `files` and `idle`.

# A run in which the device does nothing checks nothing: it copies a little first.
for selftest in /sys/kernel/debug/ncdma/*/selftest; do
	echo copy > "$selftest" || exit 1
done

cd /tmp
echo phase files > /dev/dmavet || exit 1
for round in 1 2 3; do
	seq 1 20000 | sort -r | md5sum
	seq 1 20000 | gzip -c | gunzip -c | md5sum
	n=0
	while [ $n -lt 60 ]; do
		/bin/busybox true
		n=$((n + 1))
	done
done
echo phase idle > /dev/dmavet
