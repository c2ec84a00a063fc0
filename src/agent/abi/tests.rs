//! The guest's header and this module must say the same.

use super::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

/// (C expression, value here).
type Table = Vec<(String, u64)>;

macro_rules! constants {
    ($table:ident: $($c:ident = $rust:expr),* $(,)?) => {
        $table.extend([$((stringify!($c).to_owned(), $rust as u64)),*]);
    };
}

macro_rules! layout {
    ($table:ident: $c:literal = $rust:ident { $($field:ident),* $(,)? }) => {
        $table.push((concat!("sizeof(struct ", $c, ")").to_owned(), size_of::<$rust>() as u64));
        $($table.push((
            concat!("offsetof(struct ", $c, ", ", stringify!($field), ")").to_owned(),
            offset_of!($rust, $field) as u64,
        ));)*
        let fields: &[&str] = &[$(stringify!($field)),*];
        $table.push((format!("FIELDS:{}", $c), fields.len() as u64));
    };
}

#[expect(clippy::cast_lossless, reason = "one macro for constants of all widths")]
fn ours() -> Table {
    let mut t = Table::new();
    constants!(t:
        DMAVET_PCI_VENDOR = PCI_VENDOR, DMAVET_PCI_DEVICE = PCI_DEVICE,
        DMAVET_REG_MAGIC = REG_MAGIC, DMAVET_REG_ABI = REG_ABI, DMAVET_REG_SLOTS_LO = REG_SLOTS_LO,
        DMAVET_REG_SLOTS_HI = REG_SLOTS_HI, DMAVET_REG_SLOT_COUNT = REG_SLOT_COUNT,
        DMAVET_REG_DOORBELL = REG_DOORBELL, DMAVET_REG_STATUS = REG_STATUS, DMAVET_REG_BAR_SIZE = REG_BAR_SIZE,
        DMAVET_MAGIC = MAGIC, DMAVET_ABI_VERSION = ABI_VERSION,
        DMAVET_STATE_READY = STATE_READY, DMAVET_STATE_REFUSED = STATE_REFUSED,
        DMAVET_SLOT_SIZE = SLOT_SIZE, DMAVET_MAX_SLOTS = MAX_SLOTS, DMAVET_PAYLOAD_SIZE = PAYLOAD_SIZE,
        DMAVET_CALL_HELLO = CALL_HELLO, DMAVET_CALL_SITE = CALL_SITE, DMAVET_CALL_BOUND = CALL_BOUND,
        DMAVET_CALL_UNBOUND = CALL_UNBOUND, DMAVET_CALL_MODULE = CALL_MODULE, DMAVET_CALL_BLIND = CALL_BLIND,
        DMAVET_CALL_MAP = CALL_MAP, DMAVET_CALL_UNMAP = CALL_UNMAP, DMAVET_CALL_SYNC = CALL_SYNC,
        DMAVET_CALL_SET_MASK = CALL_SET_MASK, DMAVET_CALL_FETCH = CALL_FETCH, DMAVET_CALL_REJECTED = CALL_REJECTED, DMAVET_CALL_OUTPUT = CALL_OUTPUT,
        DMAVET_CALL_PHASE = CALL_PHASE, DMAVET_CALL_FAIL = CALL_FAIL, DMAVET_CALL_EXIT = CALL_EXIT,
        DMAVET_CALL_END = CALL_END, DMAVET_CALL_PANIC = CALL_PANIC,
        DMAVET_REQUESTER_PLATFORM = REQUESTER_PLATFORM, DMAVET_FIRST = FIRST, DMAVET_LAST = LAST,
        DMAVET_STATUS_OK = STATUS_OK, DMAVET_STATUS_FAILED = STATUS_FAILED,
        DMAVET_STATUS_MALFORMED = STATUS_MALFORMED, DMAVET_STATUS_MORE = STATUS_MORE,
        DMAVET_STATUS_PENDING = STATUS_PENDING,
        DMAVET_NAME_LEN = NAME_LEN, DMAVET_SYMBOL_LEN = SYMBOL_LEN, DMAVET_MAX_FRAMES = MAX_FRAMES,
        DMAVET_MAX_ANCHORS = MAX_ANCHORS, DMAVET_MODULE_COMING = MODULE_COMING, DMAVET_MODULE_LIVE = MODULE_LIVE,
        DMAVET_MODULE_GOING = MODULE_GOING, DMAVET_DMA_FOR_CPU = DMA_FOR_CPU,
        DMAVET_REJECTED_FLAGS = REJECTED_FLAGS, DMAVET_REJECTED_VMALLOC = REJECTED_VMALLOC,
        DMAVET_RANGES_PER_SLOT = RANGES_PER_SLOT, DMAVET_MAX_RANGES = MAX_RANGES,
    );
    use dmavet_coherence::ids::{Family, PageKind};
    constants!(t:
        DMAVET_FAMILY_SINGLE = Family::Single, DMAVET_FAMILY_SG = Family::Sg, DMAVET_FAMILY_RESOURCE = Family::Resource,
        DMAVET_FAMILY_COHERENT = Family::Coherent, DMAVET_FAMILY_PAGES = Family::Pages,
        DMAVET_KIND_OTHER = PageKind::Other, DMAVET_KIND_SLAB = PageKind::Slab,
        DMAVET_KIND_PAGE_POOL = PageKind::PagePool, DMAVET_KIND_FOREIGN = PageKind::Foreign,
    );
    use dmavet_coherence::AllocFlags;
    constants!(t:
        DMAVET_GFP_DMA = AllocFlags::DMA.bits(), DMAVET_GFP_DMA32 = AllocFlags::DMA32.bits(),
        DMAVET_GFP_HIGHMEM = AllocFlags::HIGHMEM.bits(), DMAVET_GFP_COMP = AllocFlags::COMP.bits(),
    );
    layout!(t: "dmavet_slot" = SlotHeader {
        version, call, flags, requester, cpu, site, length, lost, chunk, reserved0, reserved1, status, count, value
    });
    layout!(t: "dmavet_hello" = Hello { abi, cpus, release });
    layout!(t: "dmavet_frame" = FrameRecord { address, symbol });
    layout!(t: "dmavet_bound" = Bound { driver, module });
    layout!(t: "dmavet_module" = Module { state, anchors, text_base, text_size, init_base, init_size, name, anchor });
    layout!(t: "dmavet_exit" = Exit { code, reserved });
    layout!(t: "dmavet_rejected" = Rejected { reason, flags });
    layout!(t: "dmavet_range" = Range { addr, len });
    layout!(t: "dmavet_dma" = Dma {
        family, direction, kind, flags, count, total, first, attrs, mask, seg_boundary, max_seg_size, min_align_mask,
        cpu_addr, object_before, object_after
    });
    t
}

fn header() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-images/agent/dmavet_abi.h")
}

/// What a C compiler makes of the header.
fn theirs(expressions: &[&str]) -> BTreeMap<String, u64> {
    let mut program = format!("#include <stddef.h>\n#include <stdio.h>\n#include \"{}\"\nint main(void)\n{{\n", header().display());
    for e in expressions {
        writeln!(program, "\tprintf(\"%s=%llu\\n\", \"{e}\", (unsigned long long)({e}));").unwrap();
    }
    program.push_str("\treturn 0;\n}\n");
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&source, program).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&cc)
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-o"])
        .args([&binary, &source])
        .status()
        .unwrap_or_else(|e| panic!("this test needs a C compiler, {cc}: {e}"));
    assert!(status.success(), "{cc} does not take the header");
    let output = Command::new(&binary).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap())
        .collect()
}

#[test]
fn every_size_offset_and_constant_agrees_with_the_guests_header() {
    let ours = ours();
    let (counts, expressions): (Vec<_>, Vec<_>) = ours.iter().partition(|(name, _)| name.starts_with("FIELDS:"));
    let names: Vec<&str> = expressions.iter().map(|(name, _)| name.as_str()).collect();
    let theirs = theirs(&names);
    for (name, value) in expressions {
        assert_eq!(theirs.get(name), Some(value), "{name}");
    }
    assert_eq!(counts.len(), 9);
}

/// Nothing in the header may be missing from the table above.
#[test]
fn the_comparison_is_complete() {
    let text = std::fs::read_to_string(header()).unwrap();
    let ours: BTreeMap<_, _> = ours().into_iter().collect();
    let mut current: Option<(String, u64)> = None;
    let mut seen = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), current.as_mut()) {
            (["#define", name, _, ..], _) => assert!(ours.contains_key(*name), "{name} is not compared"),
            (["struct", name, "{"], _) => current = Some(((*name).to_owned(), 0)),
            (["};"], Some((name, fields))) => {
                assert_eq!(ours.get(&format!("FIELDS:{name}")), Some(&*fields), "fields of struct {name}");
                current = None;
                seen += 1;
            }
            ([ty, ..], Some((_, fields))) if ty.starts_with("__") || *ty == "struct" => *fields += 1,
            _ => {}
        }
    }
    assert_eq!(seen, 9, "structures found in the header");
}

#[test]
fn what_must_fit_into_a_slot_does() {
    assert_eq!(size_of::<SlotHeader>() + PAYLOAD_SIZE, SLOT_SIZE);
    assert_eq!(size_of::<Dma>() + RANGES_PER_SLOT * size_of::<Range>(), PAYLOAD_SIZE);
    assert!(MAX_FRAMES * size_of::<FrameRecord>() <= PAYLOAD_SIZE);
    assert!(size_of::<Module>() <= PAYLOAD_SIZE);
}
