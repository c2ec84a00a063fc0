#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The default workload: the self-test of every ncdma device, which is
# `all` or what the arguments say (for example: workload.sh copy 5).
# Prints the result lines; exits 1 if a test failed or there is no device.
# Builtins of the shell only: the guest need not have anything else.

status=0
found=0
for selftest in /sys/kernel/debug/ncdma/*/selftest; do
	[ -e "$selftest" ] || continue
	found=1
	{ echo "${*:-all}" > "$selftest"; } 2>/dev/null || status=1
	lines=0
	while read -r line; do
		lines=$((lines + 1))
		echo "$line"
		case "$line" in
		*FAIL*) status=1 ;;
		esac
	done < "$selftest"
	[ "$lines" -gt 0 ] || status=1
done

if [ "$found" -eq 0 ]; then
	echo "no ncdma device: the driver is not loaded or not bound"
	status=1
fi
exit "$status"
