//! Layouts of the transport (virtio 1.2 section 4.1.4). No logic.

use super::Kind;
use crate::pci::{BarSpec, Capability, Identity, MsixSpec, VENDOR_VIRTIO};
use crate::registers::Access::{Ro, Rw};
use crate::registers::{Register, RegisterMap, Widths};
use std::ops::Range;
use virtio_bindings::virtio_config::{VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// The structures' BAR and where they lie in it.
pub(super) const BAR: usize = 0;
const BAR_SIZE: u64 = 0x4000;
const COMMON: Range<u32> = 0x0000..0x0038;
const ISR: Range<u32> = 0x1000..0x1001;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;
const MSIX_BAR: u8 = 1;

/// Transitional devices have ids below; section 4.1.2.1.
const FIRST_DEVICE_ID: u16 = 0x1040;
const CAP_VENDOR: u8 = 0x09;

/// VIRTIO_MSI_NO_VECTOR.
pub(super) const NO_VECTOR: u16 = 0xffff;
/// ISR status bits (section 4.1.4.5).
pub(super) const ISR_QUEUE: u8 = 1;
pub(super) const ISR_CONFIG: u8 = 2;

pub(super) const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
/// What a driver must accept.
pub(super) const REQUIRED: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_F_ACCESS_PLATFORM;
/// What every device here offers.
pub(super) const TRANSPORT_FEATURES: u64 = REQUIRED | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A part of the BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The common configuration, and the offset in it.
    Common(u64),
    /// The ISR status.
    Isr,
    /// The device-specific configuration, and the offset in it.
    Device(u64),
    /// The notification address of a queue.
    Notify(usize),
}

/// The part of the BAR an access at `offset` begins in.
pub(super) fn part(offset: u64) -> Option<Part> {
    if offset < u64::from(COMMON.end) {
        return Some(Part::Common(offset));
    }
    if offset == u64::from(ISR.start) {
        return Some(Part::Isr);
    }
    if let Some(offset) = offset.checked_sub(u64::from(NOTIFY)) {
        let (queue, rest) = (offset / u64::from(NOTIFY_MULTIPLIER), offset % u64::from(NOTIFY_MULTIPLIER));
        return if rest == 0 { Some(Part::Notify(usize::try_from(queue).ok()?)) } else { None };
    }
    offset.checked_sub(u64::from(DEVICE)).map(Part::Device)
}

pub(super) const fn identity(kind: &Kind) -> Identity {
    let device = FIRST_DEVICE_ID + kind.id;
    Identity { vendor: VENDOR_VIRTIO, device, class: kind.class, revision: 1, subsystem_vendor: VENDOR_VIRTIO, subsystem: device }
}

pub(super) fn bars() -> Vec<BarSpec> {
    vec![BarSpec::memory32(BAR, BAR_SIZE), BarSpec::memory32(usize::from(MSIX_BAR), 0x1000)]
}

/// One vector for each queue, one for configuration changes.
pub(super) fn msix(kind: &Kind) -> MsixSpec {
    MsixSpec::own_bar(u16::try_from(kind.queues.len()).unwrap_or(u16::MAX).saturating_add(1).min(64), MSIX_BAR)
}

/// The capabilities that tell where the structures lie (section 4.1.4).
pub(super) fn capabilities(kind: &Kind, config_len: usize) -> Vec<Capability> {
    const COMMON_CFG: u8 = 1;
    const NOTIFY_CFG: u8 = 2;
    const ISR_CFG: u8 = 3;
    const DEVICE_CFG: u8 = 4;
    const PCI_CFG: u8 = 5;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let capability = |kind: u8, at: u32, len: u32, more: &[u32]| {
        // cap_len counts the two bytes of the header; bar, id and padding are 0.
        let mut body = vec![u8::try_from(16 + 4 * more.len()).unwrap_or(u8::MAX), kind, 0, 0, 0, 0];
        body.extend(words(&[at, len]));
        body.extend(words(more));
        Capability { id: CAP_VENDOR, body, writable: Vec::new(), window: false }
    };
    let notify_len = NOTIFY_MULTIPLIER * u32::try_from(kind.queues.len()).unwrap_or_default();
    let mut list = vec![
        capability(COMMON_CFG, COMMON.start, COMMON.end - COMMON.start, &[]),
        capability(NOTIFY_CFG, NOTIFY, notify_len, &[NOTIFY_MULTIPLIER]),
        capability(ISR_CFG, ISR.start, ISR.end - ISR.start, &[]),
    ];
    if config_len != 0 {
        list.push(capability(DEVICE_CFG, DEVICE, u32::try_from(config_len).unwrap_or_default(), &[]));
    }
    let mut window = capability(PCI_CFG, 0, 0, &[0]);
    // Software chooses the BAR, the offset, the length and the data.
    window.writable = vec![0, 0, 0xff, 0, 0, 0];
    window.writable.extend([0xff; 12]);
    window.window = true;
    list.push(window);
    list
}

/// A field of the common configuration structure (section 4.1.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    Status,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
}

/// The common configuration structure. Drivers use accesses of the width of the field, two of 32 bits for one of 64.
pub(super) const REGISTERS: RegisterMap<Reg> = RegisterMap::new(
    &[
        Register::new(Reg::DeviceFeatureSelect, 0x00, 4, Rw),
        Register::new(Reg::DeviceFeature, 0x04, 4, Ro),
        Register::new(Reg::DriverFeatureSelect, 0x08, 4, Rw),
        Register::new(Reg::DriverFeature, 0x0c, 4, Rw),
        Register::new(Reg::ConfigVector, 0x10, 2, Rw),
        Register::new(Reg::NumQueues, 0x12, 2, Ro),
        Register::new(Reg::Status, 0x14, 1, Rw),
        Register::new(Reg::ConfigGeneration, 0x15, 1, Ro),
        Register::new(Reg::QueueSelect, 0x16, 2, Rw),
        Register::new(Reg::QueueSize, 0x18, 2, Rw),
        Register::new(Reg::QueueVector, 0x1a, 2, Rw),
        Register::new(Reg::QueueEnable, 0x1c, 2, Rw),
        Register::new(Reg::QueueNotifyOff, 0x1e, 2, Ro),
        Register::new(Reg::QueueDesc, 0x20, 8, Rw),
        Register::new(Reg::QueueDriver, 0x28, 8, Rw),
        Register::new(Reg::QueueDevice, 0x30, 8, Rw),
    ],
    Widths::Any,
);
