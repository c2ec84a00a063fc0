#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Writes every virtio disk and reads it back (lib/disk.sh). Exits 1 if a byte was wrong or there is no disk.

model=virtio-blk
. /dmavet/lib/disk.sh
disks /sys/bus/virtio/drivers/virtio_blk
