//! From the guest's addresses to functions and source lines.
//!
//! The guest names each frame as `%pS` does (`func+0x1a/0x80 [module]`); the source line comes from the DWARF of the module
//! the run loaded, which the host keeps unstripped. A module is a relocatable object: all its sections start at address 0
//! and its debug information refers to them through relocations. [`ModuleImage`] therefore lays the code sections out at
//! bases of its own choice, applies the relocations of the debug sections to that layout, and looks addresses up in it.
//! Where the guest loaded a section is learned from the frames it named.

use addr2line::Context;
use dmavet_coherence::site::{Frame, SiteTable};
use dmavet_unwind::{CodeMap, KernelImage};
use gimli::{EndianArcSlice, RunTimeEndian};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SectionKind, SymbolKind};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Slice = EndianArcSlice<RunTimeEndian>;

/// Code sections are laid out this far apart: farther than any section of a module is long.
const SECTION_STRIDE: u64 = 1 << 32;

/// What can go wrong when a module's object file is read.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(dmavet_images::modtree::ModTreeError),
    /// The file is no ELF object this tool understands.
    #[error("{path} is not a kernel module: {reason}")]
    Object {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A function or inlined call at one address, with its source line where DWARF knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceFrame {
    /// Function name; empty when unknown.
    pub function: String,
    /// `+0x1a/0x80` as the kernel prints it, empty for inlined frames.
    pub offset: String,
    /// Module name, empty for the kernel's own code.
    pub module: String,
    /// Source file as the compiler was given it, empty when unknown.
    pub file: String,
    /// Line in `file`, 0 when unknown.
    pub line: u32,
    /// Whether the compiler inlined this function into the frame that follows.
    pub inlined: bool,
}

/// What the names of the kernel's own headers have in them.
pub const KERNEL_HEADERS: [&str; 5] = ["include/linux/", "include/asm", "include/net/", "include/generated/", "include/uapi/"];

impl SourceFrame {
    /// Whether the frame lies in one of the kernel's own headers, inlined into a driver.
    #[must_use]
    pub fn in_kernel_header(&self) -> bool {
        KERNEL_HEADERS.iter().any(|dir| self.file.contains(dir))
    }
}

/// The frame of a stack to name: see [`crate::report::ReportSite::top`].
#[must_use]
pub fn top(frames: &[SourceFrame]) -> Option<&SourceFrame> {
    let lines = || frames.iter().filter(|f| f.line != 0);
    lines().find(|f| !f.in_kernel_header()).or_else(|| lines().next()).or_else(|| frames.first())
}

/// A parsed `func+0x1a/0x80 [module]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelSymbol<'a> {
    pub(crate) function: &'a str,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) module: &'a str,
}

impl<'a> KernelSymbol<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (location, module) = match text.split_once(" [") {
            Some((location, rest)) => (location, rest.split([' ', ']']).next().unwrap_or("")),
            None => (text, ""),
        };
        let (function, rest) = location.rsplit_once("+0x")?;
        let (offset, size) = rest.split_once("/0x")?;
        Some(Self { function, offset: u64::from_str_radix(offset, 16).ok()?, size: u64::from_str_radix(size.trim(), 16).ok()?, module })
    }
}

/// A function of a module.
#[derive(Clone, Debug)]
struct Function {
    name: String,
    section: SectionIndex,
    start: u64,
    size: u64,
}

/// The host's copy of one kernel module: its functions, and its debug information if there is any.
pub struct ModuleImage {
    name: String,
    functions: Vec<Function>,
    context: Option<Context<Slice>>,
    /// Guest virtual address at which a section was loaded, as far as frames told.
    loaded: HashMap<usize, u64>,
    /// Size of each code section.
    sections: HashMap<usize, u64>,
}

impl std::fmt::Debug for ModuleImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleImage").field("name", &self.name).field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}

/// The bytes of a module, decompressed if its name says so.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, SymbolError> {
    dmavet_images::modtree::read_module(path).map_err(SymbolError::Read)
}

/// The name the kernel gives the module in `path`: the file's stem, with `-` as `_`.
#[must_use]
pub fn module_name(path: &Path) -> String {
    let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn layout_base(section: SectionIndex) -> u64 {
    SECTION_STRIDE * (section.0 as u64 + 1)
}

impl ModuleImage {
    /// Reads the module at `path`. A module without debug information gives functions but no lines.
    ///
    /// # Errors
    /// When the file cannot be read or is no relocatable ELF object.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let bytes = read_module(path)?;
        let bad = |e: object::Error| SymbolError::Object { path: path.into(), reason: e.to_string() };
        let file = object::File::parse(&*bytes).map_err(bad)?;
        let mut sections = HashMap::new();
        for section in file.sections().filter(|s| s.kind() == SectionKind::Text) {
            sections.insert(section.index().0, section.size());
        }
        let functions = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text)
            .filter_map(|s| {
                let section = s.section_index()?;
                sections.contains_key(&section.0).then(|| Function {
                    name: s.name().unwrap_or_default().to_owned(),
                    section,
                    start: s.address(),
                    size: s.size(),
                })
            })
            .filter(|f| !f.name.is_empty())
            .collect();
        let context = file.section_by_name(".debug_info").and_then(|_| debug_context(&file, &sections));
        Ok(Self { name: module_name(path), functions, context, loaded: HashMap::new(), sections })
    }

    /// The module's name in the kernel.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Learns where a section was loaded from a frame the guest named.
    fn learn(&mut self, address: u64, symbol: &KernelSymbol<'_>) {
        if let Some(function) = self.function(symbol) {
            let base = address.wrapping_sub(symbol.offset).wrapping_sub(function.start);
            self.loaded.insert(function.section.0, base);
        }
    }

    fn function(&self, symbol: &KernelSymbol<'_>) -> Option<&Function> {
        // The kernel takes a symbol's size from the distance to the next one, so it can include padding.
        let mut same = self.functions.iter().filter(|f| f.name == symbol.function);
        let first = same.next()?;
        let mut best = first;
        for other in same {
            if other.size.abs_diff(symbol.size) < best.size.abs_diff(symbol.size) {
                best = other;
            }
        }
        Some(best)
    }

    /// Section and offset in it of a guest address, where the section's place is known.
    pub(crate) fn locate(&self, address: u64) -> Option<(SectionIndex, u64)> {
        self.loaded.iter().find_map(|(section, base)| {
            let offset = address.checked_sub(*base)?;
            (offset <= *self.sections.get(section)?).then_some((SectionIndex(*section), offset))
        })
    }

    /// Section and offset of a frame, by name if the guest gave one, else by address.
    pub(crate) fn place(&self, frame: &Frame) -> Option<(SectionIndex, u64)> {
        if let Some(symbol) = KernelSymbol::parse(&frame.symbol) {
            let function = self.function(&symbol)?;
            return Some((function.section, function.start + symbol.offset));
        }
        self.locate(frame.address)
    }

    /// Source frames of the instruction that ends at `offset` of `section`, innermost first.
    pub(crate) fn lines(&self, section: SectionIndex, offset: u64) -> Vec<SourceFrame> {
        self.lines_of(section, offset, offset.saturating_sub(1))
    }

    /// Source frames of the byte at `inside`, with `offset` shown.
    fn lines_of(&self, section: SectionIndex, offset: u64, inside: u64) -> Vec<SourceFrame> {
        let outer = self.functions.iter().find(|f| f.section == section && f.start <= inside && inside < f.start + f.size.max(1));
        let mut frames = Vec::new();
        if let Some(context) = &self.context
            && let Ok(mut found) = context.find_frames(layout_base(section) + inside).skip_all_loads()
        {
            while let Ok(Some(frame)) = found.next() {
                let function =
                    frame.function.as_ref().and_then(|f| f.raw_name().ok()).map(std::borrow::Cow::into_owned).unwrap_or_default();
                let (file, line) =
                    frame.location.map_or((String::new(), 0), |l| (l.file.map(normalise).unwrap_or_default(), l.line.unwrap_or(0)));
                frames.push(SourceFrame { function, offset: String::new(), module: self.name.clone(), file, line, inlined: true });
            }
        }
        if frames.is_empty() {
            frames.push(SourceFrame {
                function: outer.map(|f| f.name.clone()).unwrap_or_default(),
                offset: String::new(),
                module: self.name.clone(),
                file: String::new(),
                line: 0,
                inlined: false,
            });
        }
        if let Some(last) = frames.last_mut() {
            last.inlined = false;
            if let Some(outer) = outer {
                last.function.clone_from(&outer.name);
                last.offset = format!("+{:#x}/{:#x}", offset - outer.start, outer.size);
            }
        }
        frames
    }
}

/// Removes `.` and `dir/..` steps from a path as compilers record it.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|p| !p.is_empty() && *p != "..") => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Debug sections with their relocations applied to the layout of [`layout_base`].
fn debug_context(file: &object::File<'_>, code: &HashMap<usize, u64>) -> Option<Context<Slice>> {
    let load = |id: gimli::SectionId| -> Result<Slice, gimli::Error> {
        let bytes = file.section_by_name(id.name()).map(|section| relocated(file, &section, code)).unwrap_or_default();
        Ok(EndianArcSlice::new(Arc::from(bytes), RunTimeEndian::Little))
    };
    Context::from_dwarf(gimli::Dwarf::load(load).ok()?).ok()
}

fn relocated(file: &object::File<'_>, section: &object::Section<'_, '_>, code: &HashMap<usize, u64>) -> Vec<u8> {
    let mut bytes = section.uncompressed_data().unwrap_or_default().into_owned();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let Ok(symbol) = file.symbol_by_index(index) else { continue };
        let base = symbol.section_index().filter(|s| code.contains_key(&s.0)).map_or(0, layout_base);
        let value = base.wrapping_add(symbol.address()).wrapping_add_signed(relocation.addend());
        let width = usize::from(relocation.size() / 8);
        let Some(target) = usize::try_from(offset).ok().and_then(|at| bytes.get_mut(at..at.checked_add(width)?)) else { continue };
        for (byte, value) in target.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }
    bytes
}

/// Resolves the call stacks of a run.
#[derive(Debug, Default)]
pub struct Symbolizer {
    modules: Vec<ModuleImage>,
    /// Path of the kernel's ELF image.
    kernel: PathBuf,
    /// Its code, if anybody asked for it and there is any.
    code: OnceCell<CodeMap>,
}

impl Symbolizer {
    /// A symbolizer that knows `modules`, and the ELF kernel in the file `kernel`.
    #[must_use]
    pub fn new(modules: Vec<ModuleImage>, kernel: &Path) -> Self {
        Self { modules, kernel: kernel.into(), code: OnceCell::new() }
    }

    /// The modules it knows.
    #[must_use]
    pub fn modules(&self) -> &[ModuleImage] {
        &self.modules
    }

    /// Learns the load addresses of the modules from every frame of the run. Call it before [`Self::resolve`].
    pub fn learn(&mut self, sites: &SiteTable) {
        for frame in sites.iter().flatten() {
            if let Some(symbol) = KernelSymbol::parse(&frame.symbol)
                && let Some(module) = self.modules.iter_mut().find(|m| m.name == symbol.module)
            {
                module.learn(frame.address, &symbol);
            }
        }
    }

    /// The name of a frame in the kernel's own code that nobody named during the run.
    fn name(&self, frame: &Frame) -> Option<String> {
        let user = frame.address >> 63 == 0;
        if user || !frame.symbol.is_empty() || self.modules.iter().any(|m| m.locate(frame.address).is_some()) {
            return None;
        }
        let code = self.code.get_or_init(|| CodeMap::new(KernelImage::open(&self.kernel).ok(), []));
        if frame.exact { code.name(frame.address) } else { code.name_behind(frame.address) }
    }

    /// The source frames of one guest frame, innermost inlined call first; never empty.
    #[must_use]
    pub fn resolve(&self, frame: &Frame) -> Vec<SourceFrame> {
        let named;
        let frame = match self.name(frame) {
            Some(symbol) => {
                named = Frame { symbol, ..frame.clone() };
                &named
            }
            None => frame,
        };
        let parsed = KernelSymbol::parse(&frame.symbol);
        let module = match &parsed {
            Some(symbol) => self.modules.iter().find(|m| m.name == symbol.module),
            None => self.modules.iter().find(|m| m.locate(frame.address).is_some()),
        };
        if let Some(module) = module
            && let Some((section, offset)) = module.place(frame)
        {
            let inside = if frame.exact { offset } else { offset.saturating_sub(1) };
            return module.lines_of(section, offset, inside);
        }
        let plain = match parsed {
            Some(s) => SourceFrame {
                function: s.function.to_owned(),
                offset: format!("+{:#x}/{:#x}", s.offset, s.size),
                module: s.module.to_owned(),
                file: String::new(),
                line: 0,
                inlined: false,
            },
            None => SourceFrame {
                function: if frame.symbol.is_empty() { format!("{:#018x}", frame.address) } else { frame.symbol.clone() },
                offset: String::new(),
                module: String::new(),
                file: String::new(),
                line: 0,
                inlined: false,
            },
        };
        vec![plain]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_symbols_parse_with_and_without_a_module() {
        let s = KernelSymbol::parse("ncdma_kick+0x1a/0x80 [ncdma]").unwrap();
        assert_eq!((s.function, s.offset, s.size, s.module), ("ncdma_kick", 0x1a, 0x80, "ncdma"));
        let s = KernelSymbol::parse("dma_map_page_attrs+0x2/0x230").unwrap();
        assert_eq!((s.function, s.module), ("dma_map_page_attrs", ""));
        assert_eq!(KernelSymbol::parse("0xffffffffc0001000"), None);
        assert_eq!(KernelSymbol::parse("f+0xzz/0x1"), None);
    }

    #[test]
    fn paths_lose_their_dots() {
        assert_eq!(normalise("/a/./b/../c.c"), "/a/c.c");
        assert_eq!(normalise("../x.c"), "../x.c");
    }

    #[test]
    fn a_module_name_is_the_stem_with_underscores() {
        assert_eq!(module_name(Path::new("/x/virtio-pci.ko.xz")), "virtio_pci");
    }

    /// A relocatable object like a module, compiled on the spot: an outer function that inlines another one.
    fn object(dir: &Path) -> PathBuf {
        let source = dir.join("sample.c");
        let text = "extern void dma_sync_single_for_device(void *);\n\
                    static inline __attribute__((always_inline)) void give(void *p)\n\
                    {\n\
                    \tdma_sync_single_for_device(p);\n\
                    }\n\
                    int other(int x) { return x * 3; }\n\
                    __attribute__((section(\".init.text\"))) int kick(void *p)\n\
                    {\n\
                    \tgive(p);\n\
                    \treturn 1;\n\
                    }\n";
        std::fs::write(&source, text).unwrap();
        let object = dir.join("sample.ko");
        let status = std::process::Command::new("gcc")
            .args(["-g", "-O1", "-fno-pic", "-fcf-protection=none", "-c", "-o"])
            .args([&object, &source])
            .status()
            .expect("gcc is needed for this test");
        assert!(status.success());
        object
    }

    #[test]
    fn lines_and_inlined_frames_come_from_the_right_section() {
        let dir = tempfile::tempdir().unwrap();
        let path = object(dir.path());
        let bytes = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".init.text").unwrap();
        let (call, _) = section.relocations().next().unwrap();
        let after = call + 4;
        let size = file.symbol_by_name("kick").map(|s| s.size()).unwrap();

        let base = 0xffff_ffff_c000_0000u64;
        let mut sites = SiteTable::default();
        sites.intern(vec![Frame::new(base + after, format!("kick+{after:#x}/{size:#x} [sample]"))]);
        let mut symbolizer = Symbolizer::new(vec![ModuleImage::open(&path).unwrap()], Path::new("/nonexistent"));
        symbolizer.learn(&sites);

        let named = symbolizer.resolve(&sites.frames(dmavet_coherence::SiteId(1))[0]);
        let lines: Vec<(&str, u32, bool)> = named.iter().map(|f| (f.function.as_str(), f.line, f.inlined)).collect();
        assert_eq!(lines, [("give", 4, true), ("kick", 9, false)]);

        // A bare address in the same section resolves once the section's place is known.
        let bare = symbolizer.resolve(&Frame::new(base + after, String::new()));
        assert_eq!(bare, named);
        // The instruction itself instead of the one behind it.
        let at = Frame::at(base + after - 1, format!("kick+{:#x}/{size:#x} [sample]", after - 1));
        let exact = symbolizer.resolve(&at);
        assert_eq!(exact.iter().map(|f| f.line).collect::<Vec<_>>(), [4, 9]);
        assert_eq!(exact[1].offset, format!("+{:#x}/{size:#x}", after - 1));
        let elsewhere = symbolizer.resolve(&Frame::new(0xffff_ffff_8100_0000, String::new()));
        assert_eq!(elsewhere[0].function, "0xffffffff81000000");

        let coverage = crate::report::coverage::of_module(&path, &symbolizer, &sites).unwrap();
        let reached: Vec<_> = coverage.sites.iter().map(|s| (s.api.as_str(), s.reached)).collect();
        assert_eq!(reached, [("dma_sync_single_for_device", crate::report::coverage::Reached::Yes)]);
        let unseen = crate::report::coverage::of_module(&path, &symbolizer, &SiteTable::default()).unwrap();
        assert_eq!(unseen.reached(), (0, 1));
    }
}
