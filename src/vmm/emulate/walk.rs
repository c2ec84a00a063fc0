//! The guest's page tables.

use super::{PAGE, Stop, mode, pages::Pages};
use kvm_bindings::kvm_sregs;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

/// Bits of an entry (SDM 3A 4.3 to 4.5).
mod entry {
    pub const PRESENT: u64 = 1;
    pub const WRITABLE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Bits 51:12. What the guest's CPU has of them is not known here: none of those above its physical width counts as reserved.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bits of a page fault's error code (SDM 3A 4.7).
mod code {
    pub const PRESENT: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
}

/// How often a walk starts again because the guest changed an entry at the same time.
const ATTEMPTS: u32 = 64;

/// A page fault the guest is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// What CR2 gets.
    pub address: u64,
    /// The error code: bit 0 present, 1 write, 2 user, 3 reserved bit, 4 fetch (SDM 3A 4.7).
    pub code: u32,
}

/// A kind of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// It writes (or reads and writes).
    pub write: bool,
    /// It has user privilege (CPL 3).
    pub user: bool,
    /// It fetches an instruction.
    pub fetch: bool,
    /// It is the CPU's own (descriptor tables, TSS, event delivery): supervisor whatever the privilege level, and RFLAGS.AC does
    /// not lift SMAP. `user` is ignored then.
    pub implicit: bool,
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes mapped by the leaf entry.
    pub page_size: u64,
}

/// Translates `gva` as the CPU would for `access`, checks the rights (WP, NX, U/S, SMEP, SMAP; not protection keys) and sets the
/// accessed and dirty bits.
///
/// # Errors
/// [`Stop::Fault`], [`Stop::General`] when not canonical, [`Stop::TableOutside`], [`Stop::Raced`].
pub fn translate(ram: &GuestMemoryMmap, sregs: &kvm_sregs, rflags: u64, gva: u64, access: Access) -> Result<Translation, Stop> {
    walk(ram, sregs, rflags, gva, access, &mut Pages::default())
}

/// Guest physical addresses of the page-table pages on the way to `gva`, as far as it goes. No bits are set.
#[must_use]
pub fn tables(ram: &GuestMemoryMmap, sregs: &kvm_sregs, gva: u64) -> Vec<u64> {
    let mut pages = Pages::default();
    // Where the way ends does not matter.
    let _ = descend(ram, sregs, gva, Access::default(), &mut pages);
    pages.as_slice().to_vec()
}

/// Translates `gva` for a look from outside: no rights are checked and no bits are set.
#[must_use]
pub fn lookup(ram: &GuestMemoryMmap, sregs: &kvm_sregs, gva: u64) -> Option<u64> {
    let path = descend(ram, sregs, gva, Access::default(), &mut Pages::default()).ok()?;
    Some(path.translation.gpa)
}

/// [`translate`], which also tells the pages of the tables it visited.
pub(super) fn walk(
    ram: &GuestMemoryMmap,
    sregs: &kvm_sregs,
    rflags: u64,
    gva: u64,
    access: Access,
    tables: &mut Pages,
) -> Result<Translation, Stop> {
    for _ in 0..ATTEMPTS {
        let path = descend(ram, sregs, gva, access, tables)?;
        if !path.allows(sregs, rflags, access) {
            return Err(Stop::Fault(PageFault { address: gva, code: code::PRESENT | fault_bits(sregs, access) }));
        }
        if path.mark(ram, access.write) {
            return Ok(path.translation);
        }
    }
    Err(Stop::Raced)
}

/// The paging modes (SDM 3A 4.1.1).
struct Shape {
    levels: u32,
    /// Bytes in an entry.
    entry: u64,
    /// The table at the top.
    root: u64,
}

impl Shape {
    /// `None` with paging off.
    fn of(sregs: &kvm_sregs) -> Option<Self> {
        if sregs.cr0 & mode::CR0_PG == 0 {
            None
        } else if sregs.efer & mode::EFER_LMA != 0 {
            let levels = if sregs.cr4 & mode::CR4_LA57 == 0 { 4 } else { 5 };
            Some(Self { levels, entry: 8, root: sregs.cr3 & entry::ADDRESS })
        } else if sregs.cr4 & mode::CR4_PAE != 0 {
            // The CPU keeps the four top entries in registers; they are read afresh here.
            Some(Self { levels: 3, entry: 8, root: sregs.cr3 & 0xffff_ffe0 })
        } else {
            Some(Self { levels: 2, entry: 4, root: sregs.cr3 & 0xffff_f000 })
        }
    }

    /// The top entries of PAE paging outside long mode have neither rights nor an accessed bit.
    fn bare(&self, level: u32) -> bool {
        self.levels == 3 && level == 3
    }

    fn shift(&self, level: u32) -> u32 {
        12 + (level - 1) * if self.entry == 8 { 9 } else { 10 }
    }

    /// Whether `value`, an entry of `level` above the last, maps a page itself, and whether it has a reserved bit set.
    fn large(&self, sregs: &kvm_sregs, level: u32, value: u64) -> (bool, bool) {
        let large = value & entry::LARGE != 0;
        match (self.entry, level) {
            (4, _) => {
                let large = large && sregs.cr4 & mode::CR4_PSE != 0;
                (large, large && value & (1 << 21) != 0)
            }
            (_, 2) => (large, large && value & 0x001f_e000 != 0),
            (_, 3) if self.bare(3) => (false, false),
            (_, 3) => (large, large && value & 0x3fff_e000 != 0),
            _ => (false, large),
        }
    }
}

/// What a walk found.
struct Path {
    translation: Translation,
    writable: bool,
    user: bool,
    no_execute: bool,
    /// Address and value of the entries used, from the top.
    entries: [(u64, u64); 5],
    used: usize,
    entry_size: u64,
}

impl Path {
    fn direct(gpa: u64) -> Self {
        Self {
            translation: Translation { gpa, page_size: PAGE },
            writable: true,
            user: true,
            no_execute: false,
            entries: [(0, 0); 5],
            used: 0,
            entry_size: 8,
        }
    }

    /// SDM 3A 4.6.1.
    fn allows(&self, sregs: &kvm_sregs, rflags: u64, access: Access) -> bool {
        if sregs.cr0 & mode::CR0_PG == 0 {
            return true;
        }
        if access.fetch && self.no_execute {
            return false;
        }
        if access.user && !access.implicit {
            return self.user && (self.writable || !access.write);
        }
        if access.fetch {
            return !(self.user && sregs.cr4 & mode::CR4_SMEP != 0);
        }
        let lifted = !access.implicit && rflags & mode::RFLAGS_AC != 0;
        if self.user && sregs.cr4 & mode::CR4_SMAP != 0 && !lifted {
            return false;
        }
        self.writable || !access.write || sregs.cr0 & mode::CR0_WP == 0
    }

    /// Sets accessed bits and, for a write, the dirty bit. `false` when an entry is no longer what it was: walk again.
    fn mark(&self, ram: &GuestMemoryMmap, write: bool) -> bool {
        let last = self.used.saturating_sub(1);
        self.entries.iter().take(self.used).enumerate().all(|(index, &(gpa, value))| {
            let dirty = if write && index == last { entry::DIRTY } else { 0 };
            let wanted = value | entry::ACCESSED | dirty;
            wanted == value || replace(ram, gpa, self.entry_size, value, wanted)
        })
    }
}

fn descend(ram: &GuestMemoryMmap, sregs: &kvm_sregs, gva: u64, access: Access, tables: &mut Pages) -> Result<Path, Stop> {
    if !mode::is_canonical(sregs, gva) {
        return Err(Stop::General);
    }
    let Some(shape) = Shape::of(sregs) else {
        return Ok(Path::direct(gva & 0xffff_ffff));
    };
    let fault = |bits: u32| Stop::Fault(PageFault { address: gva, code: bits | fault_bits(sregs, access) });
    let nx_enabled = sregs.efer & mode::EFER_NXE != 0;
    let mut path = Path { entry_size: shape.entry, ..Path::direct(0) };
    let mut table = shape.root;
    for level in (1..=shape.levels).rev() {
        let index_mask = if shape.entry == 8 { 0x1ff } else { 0x3ff };
        let at = table + ((gva >> shape.shift(level)) & index_mask) * shape.entry;
        tables.add(at);
        let value = read(ram, at, shape.entry)?;
        if value & entry::PRESENT == 0 {
            return Err(fault(0));
        }
        let (large, reserved) = if level == 1 { (false, false) } else { shape.large(sregs, level, value) };
        if reserved || (value & entry::NO_EXECUTE != 0 && !nx_enabled) {
            return Err(fault(code::PRESENT | code::RESERVED));
        }
        if !shape.bare(level) {
            path.writable &= value & entry::WRITABLE != 0;
            path.user &= value & entry::USER != 0;
            path.no_execute |= value & entry::NO_EXECUTE != 0;
            if let Some(slot) = path.entries.get_mut(path.used) {
                *slot = (at, value);
                path.used += 1;
            }
        }
        if large || level == 1 {
            let page_size = 1 << shape.shift(level);
            let mut base = value & entry::ADDRESS & !(page_size - 1);
            if large && shape.entry == 4 {
                // PSE-36: bits 20:13 are address bits 39:32.
                base = (value & 0xffc0_0000) | ((value >> 13) & 0xff) << 32;
            }
            path.translation = Translation { gpa: base | (gva & (page_size - 1)), page_size };
            return Ok(path);
        }
        table = value & entry::ADDRESS;
    }
    // Not reached: the last level always returns.
    Err(fault(0))
}

fn fault_bits(sregs: &kvm_sregs, access: Access) -> u32 {
    let pae = sregs.cr4 & mode::CR4_PAE != 0;
    let tells_fetch = (pae && sregs.efer & mode::EFER_NXE != 0) || sregs.cr4 & mode::CR4_SMEP != 0;
    let mut bits = 0;
    if access.write {
        bits |= code::WRITE;
    }
    if access.user && !access.implicit {
        bits |= code::USER;
    }
    if access.fetch && tells_fetch {
        bits |= code::FETCH;
    }
    bits
}

fn read(ram: &GuestMemoryMmap, gpa: u64, size: u64) -> Result<u64, Stop> {
    let outside = Stop::TableOutside { gpa };
    if size == 8 {
        let slice = ram.get_slice(GuestAddress(gpa), 8).map_err(|_| outside)?;
        Ok(slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| outside)?.load(Ordering::Acquire))
    } else {
        let slice = ram.get_slice(GuestAddress(gpa), 4).map_err(|_| outside)?;
        Ok(slice.get_atomic_ref::<AtomicU32>(0).map_err(|_| outside)?.load(Ordering::Acquire).into())
    }
}

fn replace(ram: &GuestMemoryMmap, gpa: u64, size: u64, old: u64, new: u64) -> bool {
    const ORDER: (Ordering, Ordering) = (Ordering::SeqCst, Ordering::Relaxed);
    if size == 8 {
        let Ok(slice) = ram.get_slice(GuestAddress(gpa), 8) else { return false };
        slice.get_atomic_ref::<AtomicU64>(0).is_ok_and(|entry| entry.compare_exchange(old, new, ORDER.0, ORDER.1).is_ok())
    } else {
        let (Ok(old), Ok(new)) = (u32::try_from(old), u32::try_from(new)) else { return false };
        let Ok(slice) = ram.get_slice(GuestAddress(gpa), 4) else { return false };
        slice.get_atomic_ref::<AtomicU32>(0).is_ok_and(|entry| entry.compare_exchange(old, new, ORDER.0, ORDER.1).is_ok())
    }
}
