//! This very program as the outer machine needs it: the executable and, unless it is static, its loader and libraries.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{DT_SONAME, ET_DYN, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

/// Where libraries are put in the outer machine; `LD_LIBRARY_PATH` points there.
pub(super) const LIBRARY_DIR: &str = "/lab/lib";

/// Contents to pack.
#[derive(Debug)]
pub(super) struct Program {
    /// The executable.
    pub(super) executable: Vec<u8>,
    /// Path the executable wants its loader at, and the loader. `None` for a static executable.
    pub(super) loader: Option<(String, Vec<u8>)>,
    /// Libraries by the name they are looked up under.
    pub(super) libraries: BTreeMap<String, Vec<u8>>,
}

impl Program {
    /// Reads the running program. `/proc/self/exe` works even when the file was replaced by a newer build meanwhile.
    pub(super) fn running() -> io::Result<Self> {
        let executable = fs::read("/proc/self/exe")?;
        let Some(interpreter) = interpreter(&executable) else {
            return Ok(Self { executable, loader: None, libraries: BTreeMap::new() });
        };
        let loader = fs::read(&interpreter)?;
        let own = (fs::canonicalize("/proc/self/exe").ok(), fs::canonicalize(&interpreter)?);
        let mut libraries = BTreeMap::new();
        for path in mapped_files(&fs::read_to_string("/proc/self/maps")?) {
            if own.0.as_ref() == Some(&path) || own.1 == path || !is_elf(&path) {
                continue;
            }
            let contents = fs::read(&path)?;
            if let Some(name) = library_name(&contents, &path) {
                libraries.insert(name, contents);
            }
        }
        Ok(Self { executable, loader: Some((interpreter, loader)), libraries })
    }
}

fn mapped_files(maps: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .filter(|path| !path.ends_with(" (deleted)") && !path.starts_with("/dev/") && !path.starts_with("/memfd:"))
        .map(PathBuf::from)
        .collect();
    files.sort();
    files.dedup();
    files
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn interpreter(elf: &[u8]) -> Option<String> {
    let header = FileHeader64::<Endianness>::parse(elf).ok()?;
    let endian = header.endian().ok()?;
    let path = header.program_headers(endian, elf).ok()?.iter().find_map(|p| p.interpreter(endian, elf).ok().flatten())?;
    String::from_utf8(path.to_vec()).ok()
}

/// The name a library is asked for by: its DT_SONAME, else its file name. `None` for what is not a library.
fn library_name(elf: &[u8], path: &Path) -> Option<String> {
    let header = FileHeader64::<Endianness>::parse(elf).ok()?;
    let endian = header.endian().ok()?;
    if header.e_type.get(endian) != ET_DYN {
        return None;
    }
    let soname = || {
        let sections = header.sections(endian, elf).ok()?;
        let (entries, link) = sections.dynamic(endian, elf).ok()??;
        let strings = sections.strings(endian, elf, link).ok()?;
        let entry = entries.iter().find(|e| e.d_tag.get(endian) == DT_SONAME)?;
        let name = strings.get(u32::try_from(entry.d_val.get(endian)).ok()?).ok()?;
        String::from_utf8(name.to_vec()).ok()
    };
    soname().or_else(|| Some(path.file_name()?.to_str()?.to_owned())).filter(|n| !n.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_finds_its_own_parts() {
        let program = Program::running().unwrap();
        assert!(program.executable.starts_with(b"\x7fELF"));
        if let Some((path, loader)) = &program.loader {
            assert!(path.starts_with('/') && loader.starts_with(b"\x7fELF"), "{path}");
            assert!(program.libraries.keys().any(|n| n.starts_with("libc.")), "{:?}", program.libraries.keys());
        }
    }

    #[test]
    fn maps_are_read_without_anonymous_and_deleted_parts() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 1 /usr/bin/x\n00652000-00655000 rw-p 0 00:00 0 [heap]\n\
                    7f00-7f01 r--p 0 08:02 2 /usr/lib/a b.so\n7f01-7f02 r-xp 0 08:02 2 /usr/lib/a b.so\n7f03-7f04 rw-s 0 0:1 3 /memfd:x (deleted)\n";
        assert_eq!(mapped_files(maps), [PathBuf::from("/usr/bin/x"), "/usr/lib/a b.so".into()]);
    }
}
