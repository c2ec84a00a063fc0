//! Stock kernels as their packages ship them, and modules built for them.
//!
//! Needs the kernels in the cache or the network, and a compiler; a missing one fails the test with what was tried.

use dmavet_images::cache::Cache;
use dmavet_images::kernel::{KernelFiles, kernel};
use dmavet_images::module::{ModuleSource, build};
use dmavet_unwind::{CodeMap, Frame, KernelImage, Layout, ModuleImage, Registers};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use std::path::PathBuf;

const STACK: u64 = 0xffff_c900_0001_0000;
const MODULE: u64 = 0xffff_ffff_c000_0000;

struct Bench {
    cache: Cache,
    files: KernelFiles,
}

impl Bench {
    fn new(name: &str) -> Self {
        let cache = Cache::open(None).unwrap_or_else(|e| panic!("{e}"));
        let files = kernel(&cache, &name.parse().unwrap(), false, &|step| println!("{step}")).unwrap_or_else(|e| panic!("{e}"));
        Self { cache, files }
    }

    fn image(&self) -> KernelImage {
        KernelImage::open(&self.files.vmlinux).unwrap_or_else(|e| panic!("{}: {e}", self.files.vmlinux.display()))
    }

    fn ncdma(&self) -> PathBuf {
        let source = ModuleSource::ncdma();
        build(&self.cache, &self.files, &source, &|step| println!("{step}")).unwrap_or_else(|e| panic!("{e}")).guest_ko
    }
}

/// Functions the kernel exports, from the tables modules are linked by: what kallsyms says must agree.
fn exports(vmlinux: &[u8]) -> Vec<(u64, String)> {
    let file = object::File::parse(vmlinux).unwrap();
    let strings = file.section_by_name("__ksymtab_strings").unwrap();
    let (names, names_at) = (strings.data().unwrap(), strings.address());
    let mut found = Vec::new();
    for section in ["__ksymtab", "__ksymtab_gpl"].iter().filter_map(|name| file.section_by_name(name)) {
        let at = |i: usize| {
            let bytes = section.data().unwrap()[i..i + 4].try_into().unwrap();
            section.address().wrapping_add(i as u64).wrapping_add_signed(i32::from_le_bytes(bytes).into())
        };
        for i in (0..section.data().unwrap().len()).step_by(12) {
            let name = &names[usize::try_from(at(i + 4) - names_at).unwrap()..];
            let name = name.split(|b| *b == 0).next().unwrap();
            found.push((at(i), String::from_utf8(name.to_vec()).unwrap()));
        }
    }
    found
}

/// The stack of a CPU about to execute the first instruction of the function at `rip`, called from `caller`.
fn stack_at(map: &CodeMap, rip: u64, caller: u64) -> Vec<Frame> {
    let registers = Registers { rip, rsp: STACK, rbp: 1, ..Registers::default() };
    let mut read = |at: u64, data: &mut [u8]| {
        let word = if at == STACK { caller } else { 0 };
        data.copy_from_slice(&word.to_le_bytes()[..data.len()]);
        (STACK..STACK + 0x1000).contains(&at)
    };
    map.unwind(&registers, &mut read, 2)
}

fn check_kernel(name: &str, fewest: u32) {
    let bench = Bench::new(name);
    let image = bench.image();
    assert!(image.symbols() >= fewest, "{} symbols", image.symbols());
    assert!(image.unwind_entries() > 300_000, "{} unwind entries", image.unwind_entries());
    let caller = image.address("start_kernel").unwrap() + 5;
    assert!(image.address("_stext") < image.address("schedule") && image.address("schedule") < image.address("_etext"));

    let map = CodeMap::new(Some(image), []);
    let exports: Vec<_> = exports(&std::fs::read(&bench.files.vmlinux).unwrap())
        .into_iter()
        .filter(|(at, name)| map.is_text(*at) && !name.starts_with("__x86_indirect_"))
        .collect();
    assert!(exports.len() > 5000, "{} exported functions", exports.len());
    let (mut same, mut unwound) = (0, 0);
    for (at, name) in &exports {
        let found = map.name(*at).unwrap();
        let (function, rest) = found.split_once("+0x0/0x").unwrap_or_else(|| panic!("{name} is {found}"));
        let size = u64::from_str_radix(rest, 16).unwrap();
        assert!((1..0x8000).contains(&size), "{found}");
        assert_eq!(map.name_behind(at + size), Some(format!("{function}+{size:#x}/{size:#x}")));
        same += usize::from(function == name);
        let stack = stack_at(&map, *at, caller);
        unwound += usize::from(stack.get(1) == Some(&Frame { address: caller, exact: false, reliable: true }));
    }
    println!("{name}: {} exported functions, {same} have that name, {unwound} unwind at their first instruction", exports.len());
    // Several names for one address are common enough; exported code that is no function is rare.
    assert!(same * 100 > exports.len() * 98, "{same} of {} exports have their name", exports.len());
    assert!(unwound + 5 >= exports.len(), "{unwound} of {} exports can be unwound", exports.len());
}

/// The address behind the call of `callee` in the function at `start`.
fn behind_call(vmlinux: &[u8], start: u64, callee: u64) -> u64 {
    let file = object::File::parse(vmlinux).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let code = text.data_range(start, 256).unwrap().unwrap();
    let calls = (0..code.len() - 5).filter(|at| code[*at] == 0xe8).map(|at| {
        let behind = start + at as u64 + 5;
        (behind, behind.wrapping_add_signed(i32::from_le_bytes(code[at + 1..at + 5].try_into().unwrap()).into()))
    });
    calls.into_iter().find(|(_, target)| *target == callee).unwrap_or_else(|| panic!("no call of {callee:#x} from {start:#x}")).0
}

/// A stack ends where an interrupt or exception entered the kernel, as it does in what the guest tells (filter_irq_stacks() in the
/// kernel); one that a system call entered ends at user mode.
fn check_entries(name: &str) {
    let bench = Bench::new(name);
    let image = bench.image();
    let vmlinux = std::fs::read(&bench.files.vmlinux).unwrap();
    let address = |name: &str| image.address(name).unwrap_or_else(|| panic!("no {name}"));
    let entries = [
        ("asm_exc_page_fault", "exc_page_fault"),
        ("asm_common_interrupt", "common_interrupt"),
        ("asm_sysvec_apic_timer_interrupt", "sysvec_apic_timer_interrupt"),
        ("entry_SYSCALL_64", "do_syscall_64"),
    ];
    let entries = entries.map(|(entry, handler)| (address(handler), behind_call(&vmlinux, address(entry), address(handler))));
    let interrupted = address("kfree");
    let map = CodeMap::new(Some(image), []);
    for ((handler, entry), user) in entries.into_iter().zip([false, false, false, true]) {
        // The return address, and struct pt_regs with RIP at 128, CS at 136 and RSP at 152.
        let (rip, cs) = if user { (0x40_1000, 0x33) } else { (interrupted, 0x10) };
        let words = [(0, entry), (8 + 128, rip), (8 + 136, cs), (8 + 152, STACK + 0x400)];
        let mut read = |at: u64, data: &mut [u8]| {
            let word = words.iter().find(|(offset, _)| STACK + offset == at).map_or(0, |(_, word)| *word);
            data.copy_from_slice(&word.to_le_bytes()[..data.len()]);
            (STACK..STACK + 0x1000).contains(&at)
        };
        let registers = Registers { rip: handler, rsp: STACK, ..Registers::default() };
        let expected = [Frame { address: handler, exact: true, reliable: true }, Frame { address: entry, exact: false, reliable: true }];
        assert_eq!(map.unwind(&registers, &mut read, 24), expected, "{name}: {:?}", map.name(handler));
    }
}

fn check_module(name: &str) {
    let bench = Bench::new(name);
    let image = bench.image();
    let caller = image.address("start_kernel").unwrap() + 5;
    let bytes = std::fs::read(bench.ncdma()).unwrap();
    let mut map = CodeMap::new(Some(image), [ModuleImage::parse("ncdma", &bytes).unwrap()]);
    map.module_loaded("ncdma", Layout { text_base: MODULE, text_size: 0x8000, ..Layout::default() });
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap().index();
    let functions: Vec<_> = file
        .symbols()
        .filter(|s| {
            s.kind() == SymbolKind::Text && s.section_index() == Some(text) && s.size() > 0 && s.name().is_ok_and(|n| !n.ends_with(".cold"))
        })
        .collect();
    assert!(functions.len() > 30, "{} functions", functions.len());
    for function in &functions {
        let at = MODULE + function.address();
        let found = map.name(at).unwrap();
        let (name, rest) = found.split_once("+0x0/0x").unwrap();
        assert_eq!(name, function.name().unwrap());
        let size = u64::from_str_radix(rest.strip_suffix(" [ncdma]").unwrap(), 16).unwrap();
        assert!(size >= function.size(), "{found}");
        assert_eq!(stack_at(&map, at, caller).get(1), Some(&Frame { address: caller, exact: false, reliable: true }), "{found}");
    }
}

#[test]
fn kernel_6_1() {
    check_kernel("debian:6.1", 80_000);
    check_entries("debian:6.1");
    check_module("debian:6.1");
}

#[test]
fn kernel_6_12() {
    check_kernel("debian:6.12", 100_000);
    check_entries("debian:6.12");
    check_module("debian:6.12");
}

#[test]
fn kernel_7_2() {
    check_kernel("debian:7.2", 100_000);
    check_entries("debian:7.2");
    check_module("debian:7.2");
}
