//! What Identify tells (section 5.15.2).

use super::super::spec::{
    CQ_ENTRY_LOG2, CRITICAL_TEMPERATURE, ERROR_ENTRIES, IDENTITY, MOST_DATA_LOG2_PAGES, MOST_EVENTS, MOST_HOST_DESCRIPTORS, NAMESPACE,
    NAMESPACE_NOTICES, SECTOR_LOG2, SQ_ENTRY_LOG2, VERSION, WARNING_TEMPERATURE, put,
};

/// Every one of these structures has this size.
pub(super) const SIZE: usize = 4096;
pub(super) type Data = [u8; SIZE];
/// Firmware revision, padded.
pub(super) const FIRMWARE: &[u8; 8] = b"1       ";
const MODEL: &[u8] = b"dmavet NVMe controller";
/// Namespace identification descriptor: a UUID of 16 bytes (figure 249).
const UUID_TYPE: u8 = 3;

/// The first bytes of every UUID: random ones of version 4, which stay the same so that runs do.
const UUID: [u8; 15] = [0x64, 0x6d, 0x61, 0x76, 0x65, 0x74, 0x40, 0x00, 0x80, 0x00, 0x4e, 0x56, 0x4d, 0x65, 0x00];

/// The controller's own data structure (figure 247). `number` is which of the machine's devices it is, `host` HMPRE and HMMIN in pages.
pub(super) fn controller(number: u8, (preferred, least): (u32, u32)) -> Data {
    let mut data = [0; SIZE];
    let mut set = |at: usize, bytes: &[u8]| put(&mut data, at, bytes);
    let byte = |value: usize| [u8::try_from(value).unwrap_or(u8::MAX)];
    set(0, &IDENTITY.vendor.to_le_bytes());
    set(2, &IDENTITY.subsystem_vendor.to_le_bytes());
    // Serial number and model are padded with spaces.
    set(4, &[b' '; 60]);
    set(4, format!("DMAVET{number:04}").as_bytes());
    set(24, MODEL);
    set(64, FIRMWARE);
    // RAB, the recommended burst: 2^6 commands.
    set(72, &[6]);
    set(77, &[MOST_DATA_LOG2_PAGES]);
    set(80, &VERSION.to_le_bytes());
    set(92, &NAMESPACE_NOTICES.to_le_bytes());
    // CNTRLTYPE: I/O controller.
    set(111, &[1]);
    // ACL, the limit of aborts, counted from 0; nothing is ever left to abort but events.
    set(258, &[3]);
    set(259, &byte(MOST_EVENTS - 1));
    // FRMW: one firmware slot, read-only.
    set(260, &[1 << 1 | 1]);
    // LPA: the effects log, and log pages by offset.
    set(261, &[1 << 1 | 1 << 2]);
    set(262, &byte(ERROR_ENTRIES - 1));
    set(266, &WARNING_TEMPERATURE.to_le_bytes());
    set(268, &CRITICAL_TEMPERATURE.to_le_bytes());
    set(272, &preferred.to_le_bytes());
    set(276, &least.to_le_bytes());
    if preferred != 0 {
        set(336, &MOST_HOST_DESCRIPTORS.to_le_bytes());
    }
    // SQES and CQES: the least and the most are the same.
    let both = |log2: u32| byte(usize::try_from(log2 << 4 | log2).unwrap_or_default());
    set(512, &both(SQ_ENTRY_LOG2));
    set(513, &both(CQ_ENTRY_LOG2));
    // NN.
    set(516, &NAMESPACE.to_le_bytes());
    // ONCS: dataset management and write zeroes.
    set(520, &(1_u16 << 2 | 1 << 3).to_le_bytes());
    // VWC: there is a cache, and a flush may be for every namespace.
    set(525, &[1 | 3 << 1]);
    set(768, format!("nqn.2014-08.org.nvmexpress:uuid:{}", uuid_text(0x80 | number)).as_bytes());
    // Power state 0: at most 5 W.
    set(2048, &500_u16.to_le_bytes());
    data
}

/// The namespace's data structure (figure 245).
pub(super) fn namespace(sectors: u64, read_only: bool) -> Data {
    let mut data = [0; SIZE];
    let mut set = |at: usize, bytes: &[u8]| put(&mut data, at, bytes);
    // NSZE, NCAP, NUSE.
    for at in [0, 8, 16] {
        set(at, &sectors.to_le_bytes());
    }
    // DLFEAT: what is deallocated reads as zeros, and Write Zeroes can deallocate.
    set(33, &[1 | 1 << 3]);
    // NSATTR: write protected.
    set(99, &[u8::from(read_only)]);
    // LBAF0, the only format: LBADS.
    set(130, &[SECTOR_LOG2]);
    data
}

/// The active namespaces above `after`.
pub(super) fn list(after: u32) -> Data {
    let mut data = [0; SIZE];
    if after < NAMESPACE {
        put(&mut data, 0, &NAMESPACE.to_le_bytes());
    }
    data
}

/// The namespace's identification descriptors: its UUID.
pub(super) fn descriptors(number: u8) -> Data {
    let mut data = [0; SIZE];
    put(&mut data, 0, &[UUID_TYPE, 16]);
    put(&mut data, 4, &uuid(number));
    data
}

fn uuid(last: u8) -> [u8; 16] {
    let mut uuid = [last; 16];
    put(&mut uuid, 0, &UUID);
    uuid
}

fn uuid_text(last: u8) -> String {
    let mut text = String::new();
    for (index, byte) in uuid(last).into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
