#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Writes to every virtio console, whose other end sends everything back, and compares what comes; and again after the driver was
# unbound and bound. Exits 1 if a byte was lost or wrong or there is no console.

status=0
found=0
fail() {
	echo "virtio-console: $name: $*"
	status=1
}

seq 1 2000 | head -c 4096 > /tmp/console-sent

talk() {
	# Without this the terminal would send back what comes, and the other end again. It is kept open: the last close undoes it.
	exec 3<> "/dev/$name"
	stty raw -echo <&3 || fail "cannot be set up"
	head -c 4096 "/dev/$name" > /tmp/console-back &
	reader=$!
	cat /tmp/console-sent > "/dev/$name" || fail "write"
	tries=0
	while kill -0 $reader 2>/dev/null && [ $tries -lt 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	kill $reader 2>/dev/null
	wait $reader 2>/dev/null
	exec 3>&-
	cmp /tmp/console-sent /tmp/console-back || fail "what came back is not what was sent"
}

# Without other hypervisors' consoles every hvc terminal is a virtio console, the first one hvc0.
consoles() {
	for device in /sys/bus/virtio/drivers/virtio_console/virtio*; do
		[ -e "$device" ] && echo "${device##*/}"
	done
}

all() {
	number=0
	for device in $(consoles); do
		name=hvc$number
		number=$((number + 1))
		tries=0
		until [ -c "/dev/$name" ] || [ $tries -eq 50 ]; do
			sleep 0.1
			tries=$((tries + 1))
		done
		found=1
		talk
	done
}

all
for device in $(consoles); do
	cd /sys/bus/virtio/drivers/virtio_console && echo "$device" > unbind && echo "$device" > bind || fail "bind again"
done
all

if [ $found -eq 0 ]; then
	echo "virtio-console: no console: the driver is not loaded or not bound"
	status=1
fi
[ $status -ne 0 ] || echo "virtio-console: written and read back"
exit $status
