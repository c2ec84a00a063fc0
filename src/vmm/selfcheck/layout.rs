//! Where everything lies in the self-check's guest.
//!
//! Code, tables and the mailbox are reached by physical address (the boot page tables map the first 4 GiB one to one). The memory under
//! test is reached through a window of its own, whose neighbouring pages lie apart in physical memory:
//!
//! ```text
//! WINDOW + 0x0000   not present: below A
//! WINDOW + 0x1000   A, guarded
//! WINDOW + 0x2000   B, guarded
//! WINDOW + 0x3000   not present: above B
//! WINDOW + 0x4000   R, read-only in the guest's page tables, guarded
//! WINDOW + 0x5000   U, for user mode, guarded
//! WINDOW + 0x6000   F, code, guarded
//! WINDOW + 0x7000   P, open
//! WINDOW + 0x8000   X, code of user mode, open
//! WINDOW + 2 MiB    the 2 MiB with all of these in one large page
//! WINDOW + 4 MiB    one page (P again) under a page table that is guarded
//! WINDOW + 1 GiB    the first GiB in one huge page
//! ```

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// Task state segment; TR's base is 0 at the start.
pub const TSS: u64 = 0;
/// The driver's code and the exception stubs.
pub const CODE: u64 = 0x10_0000;
/// Forms, one slot each.
pub const FORMS: u64 = 0x11_0000;
/// Bytes for one form.
pub const FORM_SLOT: u64 = 128;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x1f_0000;
/// Global descriptor table, with segments for user mode.
pub const GDT: u64 = 0x1f_2000;
/// Top of the stack for the driver.
pub const STACK: u64 = 0x1f_5000;
/// Top of the stack for exceptions.
pub const IST: u64 = 0x1f_7000;
/// The mailbox.
pub const MAILBOX: u64 = 0x1f_8000;

/// The window's page directory pointer table, directory and two page tables, in this order.
pub const TABLES: u64 = 0x20_0000;
/// The page table that is itself guarded.
pub const GUARDED_TABLE: u64 = TABLES + 3 * PAGE;

/// Guest virtual address of the window.
pub const WINDOW: u64 = 0xffff_8000_0000_0000;
/// Its entry in the top table.
pub const WINDOW_SLOT: u64 = 256;
/// The same through a large page.
pub const LARGE: u64 = WINDOW + 0x20_0000;
/// Through a page table that is guarded.
pub const THROUGH_GUARDED_TABLE: u64 = WINDOW + 0x40_0000;
/// The same through a huge page: add the guest physical address.
pub const HUGE: u64 = WINDOW + 0x4000_0000;

/// Guest physical address of the 2 MiB that hold the memory under test.
pub const DATA: u64 = 0x40_0000;

/// A page of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Page of the window.
    pub slot: u64,
    /// Guest physical address.
    pub gpa: u64,
    /// Flags in the guest's page table.
    pub flags: u64,
    /// Whether it is guarded in the trapped passes.
    pub guarded: bool,
}

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;

const fn place(slot: u64, page: u64, flags: u64, guarded: bool) -> Place {
    Place { slot, gpa: DATA + page * PAGE, flags, guarded }
}

/// Data page.
pub const A: Place = place(1, 1, PRESENT | WRITE, true);
/// Data page above [`A`] in the window, not in physical memory.
pub const B: Place = place(2, 5, PRESENT | WRITE, true);
/// Data page the guest may not write.
pub const R: Place = place(4, 3, PRESENT, true);
/// Data page of user mode.
pub const U: Place = place(5, 9, PRESENT | WRITE | USER, true);
/// Code.
pub const F: Place = place(6, 7, PRESENT | WRITE, true);
/// Data page that is never guarded.
pub const P: Place = place(7, 11, PRESENT | WRITE, false);

/// Code of user mode.
pub const X: Place = place(8, 13, PRESENT | USER, false);

/// All of them.
pub const PLACES: [Place; 7] = [A, B, R, U, F, P, X];

impl Place {
    /// Guest virtual address.
    pub const fn gva(self) -> u64 {
        WINDOW + self.slot * PAGE
    }
}

/// The mailbox: what the host tells the guest and the other way round. Offsets in bytes.
pub mod mailbox {
    /// General registers to start with, 16 quadwords in the order of their encoding; that of R15 is not used.
    pub const IN: u64 = 0;
    /// RFLAGS to start with.
    pub const IN_FLAGS: u64 = 0x80;
    /// Address of the form.
    pub const FORM: u64 = 0x88;
    /// [`VECTORS`], [`WIDE`], [`USER_MODE`].
    pub const MODE: u64 = 0x90;
    /// Address of the driver's part that a form ends with.
    pub const SAVE: u64 = 0x98;
    /// CPUID leaf 1 ECX, leaf 7 EBX and leaf 0x8000_0001 EDX, a doubleword each.
    pub const CPUID: u64 = 0xa0;
    /// Registers after the form.
    pub const OUT: u64 = 0x100;
    /// RFLAGS after it.
    pub const OUT_FLAGS: u64 = 0x180;
    /// Vector of the exception it raised plus 1, or 0.
    pub const OUT_VECTOR: u64 = 0x188;
    /// Its error code.
    pub const OUT_ERROR: u64 = 0x190;
    /// RIP at the exception.
    pub const OUT_RIP: u64 = 0x198;
    /// CR2 at the exception.
    pub const OUT_CR2: u64 = 0x1a0;
    /// Code segment at the exception.
    pub const OUT_CS: u64 = 0x1a8;
    /// FXSAVE area before.
    pub const IN_FX: u64 = 0x200;
    /// FXSAVE area after.
    pub const OUT_FX: u64 = 0x400;
    /// Upper halves of the 16 YMM registers before, 32 bytes for each whole register.
    pub const IN_YMM: u64 = 0x600;
    /// YMM registers after.
    pub const OUT_YMM: u64 = 0x800;
    /// The x87 and SSE registers are loaded before and saved after.
    pub const VECTORS: u8 = 1;
    /// So are the YMM registers.
    pub const WIDE: u8 = 2;
    /// The form runs in user mode.
    pub const USER_MODE: u8 = 4;
}

/// Ports the guest talks to the host through.
pub mod port {
    /// First of them.
    pub const BASE: u16 = 0xe0;
    /// `out`: give me a form.
    pub const NEXT: u16 = 0;
    /// `out`: the form is done.
    pub const DONE: u16 = 1;
    /// For `ins` and `outs`, up to 4 bytes wide.
    pub const STRING: u16 = 4;
    /// Number of ports.
    pub const LEN: u16 = 8;
}

/// Selectors of the guest's descriptor table.
pub mod selector {
    /// Code of user mode.
    pub const USER_CODE: u64 = 0x28 | 3;
    /// Data of user mode.
    pub const USER_DATA: u64 = 0x20 | 3;
    /// Code.
    pub const CODE: u64 = 0x10;
}

/// Software interrupts.
pub mod vector {
    /// Delivered on the interrupted stack.
    pub const SAME_STACK: u64 = 0x30;
    /// From user mode back to the driver.
    pub const USER_DONE: u64 = 0x31;
}
