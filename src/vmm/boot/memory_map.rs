//! The memory map a guest is told, in the terms of E820 and of the PVH protocol (the numbers are the same).

use crate::layout::{self, ECAM, boot};

/// What an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// Usable memory.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// One area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Guest physical address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: MapKind,
}

impl MapEntry {
    /// First address behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// The map for `memory` bytes of RAM.
#[must_use]
pub fn memory_map(memory: u64) -> Vec<MapEntry> {
    let (low, high) = layout::split_ram(memory);
    let area = |start: u64, end: u64, kind| MapEntry { start, size: end.saturating_sub(start), kind };
    let mut map = vec![
        area(0, boot::LOW_END, MapKind::Ram),
        area(boot::LOW_END, 0xa_0000, MapKind::Reserved),
        area(boot::ACPI, boot::BIOS_END, MapKind::Acpi),
        area(boot::BIOS_END, low, MapKind::Ram),
        // Linux believes an MCFG table only when the area is reserved; early in boot this is the only place it looks.
        area(ECAM.start, ECAM.end, MapKind::Reserved),
    ];
    if high != 0 {
        map.push(area(layout::HIGH_RAM, layout::HIGH_RAM + high, MapKind::Ram));
    }
    map
}
