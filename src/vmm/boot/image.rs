//! What a kernel's image says about itself.

use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{ElfFile, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _, ReadCache};
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Guest physical ranges of the code and the constants of the kernel at `path`; empty when the file does not say: a bzImage is
/// unpacked in the guest, to wherever it likes. Best effort: what is wrong with the file is told when it is loaded.
#[must_use]
pub fn constant_parts(path: &Path) -> Vec<Range<u64>> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let cache = ReadCache::new(file);
    let Ok(elf) = ElfFile::<FileHeader64<LittleEndian>, _>::parse(&cache) else { return Vec::new() };
    // The gaps between sections go to the page allocator, as does what is only for the kernel's start; the rest may be written.
    let parts = [".text", ".rodata"].into_iter().filter_map(|name| elf.section_by_name(name));
    parts.filter_map(|section| physical(&elf, section.address(), section.size())).collect()
}

/// Where `size` bytes at a virtual address lie in guest physical memory.
fn physical<'a>(elf: &ElfFile<'a, FileHeader64<LittleEndian>, &'a ReadCache<File>>, address: u64, size: u64) -> Option<Range<u64>> {
    let endian = LittleEndian;
    let segment = elf.elf_program_headers().iter().find(|segment| {
        let into = address.wrapping_sub(segment.p_vaddr(endian));
        segment.p_type(endian) == PT_LOAD && into < segment.p_memsz(endian)
    })?;
    let start = segment.p_paddr(endian).checked_add(address.wrapping_sub(segment.p_vaddr(endian)))?;
    Some(start..start.checked_add(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// An ELF file of one segment (virtual 0x8000_1000, physical 0x10_0000) with sections of those names at 0x100 and 0x800 in it.
    fn elf(names: [&str; 2]) -> tempfile::NamedTempFile {
        let mut bytes = Vec::new();
        let mut put = |values: &[(u64, usize)]| values.iter().for_each(|(v, len)| bytes.extend_from_slice(&v.to_le_bytes()[..*len]));
        put(&[(0x0001_0102_464c_457f, 8), (0, 8), (2, 2), (62, 2), (1, 4), (0, 8), (64, 8), (120, 8), (0, 4)]);
        put(&[(64, 2), (56, 2), (1, 2), (64, 2), (4, 2), (3, 2)]);
        put(&[(1, 4), (5, 4), (0, 8), (0x8000_1000, 8), (0x10_0000, 8), (0, 8), (0x2000, 8), (0x1000, 8)]);
        let strings = format!("\0{}\0{}\0.shstrtab\0", names[0], names[1]);
        let second = 2 + names[0].len() as u64;
        let third = second + 1 + names[1].len() as u64;
        put(&[(0, 8); 8]);
        for (name, address) in [(1, 0x8000_1100), (second, 0x8000_1800)] {
            put(&[(name, 4), (8, 4), (2, 8), (address, 8), (0, 8), (0x80, 8), (0, 8), (1, 8), (0, 8)]);
        }
        put(&[(third, 4), (3, 4), (0, 8), (0, 8), (120 + 4 * 64, 8), (strings.len() as u64, 8), (0, 8), (1, 8), (0, 8)]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(strings.as_bytes()).unwrap();
        file
    }

    #[test]
    fn sections_are_found_where_they_are_loaded() {
        assert_eq!(constant_parts(elf([".text", ".rodata"]).path()), [0x10_0100..0x10_0180, 0x10_0800..0x10_0880]);
        assert_eq!(constant_parts(elf([".data", ".text"]).path()), [Range { start: 0x10_0800, end: 0x10_0880 }]);
    }

    #[test]
    fn other_files_say_nothing() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(constant_parts(file.path()).is_empty());
        file.write_all(b"\x7fELF\x02\x01\x01 and no more").unwrap();
        assert!(constant_parts(file.path()).is_empty());
        assert!(constant_parts(Path::new("/no/such/file")).is_empty());
    }
}
