//! Layouts of virtio-blk (virtio 1.2 section 5.2). No logic.

use std::ops::Range;
use virtio_bindings::virtio_blk as bits;

/// Sectors of the interface, whatever the block size.
pub(super) const SECTOR: u64 = 512;
/// Entries of the request queue.
pub(super) const QUEUE_SIZE: u16 = 128;

// Limits told to the driver (section 5.2.4).
pub(super) const MOST_SEGMENTS: u32 = 62;
pub(super) const MOST_SEGMENT: u32 = 64 * 1024;
/// The most data bytes of a request that follow from them.
pub(super) const MOST_DATA: u64 = MOST_SEGMENTS as u64 * MOST_SEGMENT as u64;
pub(super) const MOST_DISCARD_SECTORS: u32 = 1 << 16;
pub(super) const MOST_RANGES: u32 = 4;

pub(super) const READ_ONLY: u64 = 1 << bits::VIRTIO_BLK_F_RO;
pub(super) const FEATURES: u64 = 1 << bits::VIRTIO_BLK_F_SIZE_MAX
    | 1 << bits::VIRTIO_BLK_F_SEG_MAX
    | 1 << bits::VIRTIO_BLK_F_BLK_SIZE
    | 1 << bits::VIRTIO_BLK_F_FLUSH
    | 1 << bits::VIRTIO_BLK_F_DISCARD
    | 1 << bits::VIRTIO_BLK_F_WRITE_ZEROES;

/// virtio_blk_req (section 5.2.6): type, reserved, sector.
pub(super) const HEADER: usize = 16;
pub(super) const ID_LEN: usize = bits::VIRTIO_BLK_ID_BYTES as usize;
/// virtio_blk_discard_write_zeroes: sector, number of sectors, flags.
pub(super) const RANGE: usize = 16;
pub(super) const RANGE_UNMAP: u32 = bits::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Write,
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Unknown,
}

impl Operation {
    pub(super) const fn of(code: u32) -> Self {
        match code {
            bits::VIRTIO_BLK_T_IN => Self::Read,
            bits::VIRTIO_BLK_T_OUT => Self::Write,
            bits::VIRTIO_BLK_T_FLUSH => Self::Flush,
            bits::VIRTIO_BLK_T_GET_ID => Self::GetId,
            bits::VIRTIO_BLK_T_DISCARD => Self::Discard,
            bits::VIRTIO_BLK_T_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Unknown,
        }
    }
}

/// struct virtio_blk_config, as long as the features offered need it.
pub(super) fn config(bytes: u64) -> [u8; 60] {
    let mut config = [0; 60];
    let mut put = |at: Range<usize>, value: u64| {
        let bytes = value.to_le_bytes();
        config.iter_mut().skip(at.start).take(at.len()).zip(bytes).for_each(|(to, from)| *to = from);
    };
    put(0x00..0x08, bytes / SECTOR);
    put(0x08..0x0c, u64::from(MOST_SEGMENT));
    put(0x0c..0x10, u64::from(MOST_SEGMENTS));
    put(0x14..0x18, SECTOR);
    put(0x24..0x28, u64::from(MOST_DISCARD_SECTORS));
    put(0x28..0x2c, u64::from(MOST_RANGES));
    // discard_sector_alignment
    put(0x2c..0x30, 1);
    put(0x30..0x34, u64::from(MOST_DISCARD_SECTORS));
    put(0x34..0x38, u64::from(MOST_RANGES));
    // write_zeroes_may_unmap
    put(0x38..0x39, 1);
    config
}
