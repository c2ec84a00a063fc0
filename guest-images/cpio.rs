//! The archive format of an initramfs: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel).
//!
//! Deterministic: owner root, time 0, inode numbers in order of appearance. Directories above an entry are made on the way.

use std::collections::BTreeSet;
use std::io::{self, Write};

use cpio::newc;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Writes an archive entry by entry.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    inode: u32,
    directories: BTreeSet<String>,
    written: u64,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, directories: BTreeSet::new(), written: 0 }
    }

    /// A regular file with permission bits `mode` (e.g. `0o755`). `path` is absolute in the guest or relative to its root.
    ///
    /// # Errors
    /// The output cannot be written, the path is not plain, or the contents exceed 4 GiB.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR | (mode & 0o7777), (0, 0), contents)
    }

    /// A directory, mode 0755.
    ///
    /// # Errors
    /// As for [`Archive::file`].
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = plain(path)?;
        self.parents(&path)?;
        if !path.is_empty() && self.directories.insert(path.clone()) {
            self.write(&path, DIRECTORY | 0o755, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// As for [`Archive::file`].
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// A character device node. `/dev/console` must be in the archive for init to have an output before /dev is mounted.
    ///
    /// # Errors
    /// As for [`Archive::file`].
    pub fn character_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, CHARACTER | (mode & 0o7777), (major, minor), &[])
    }

    /// Ends the archive, padded to 512 bytes so that another one may follow.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let mut tail = newc::trailer(Vec::new())?;
        let length = self.written + tail.len() as u64;
        let padded = length.next_multiple_of(512) - self.written;
        tail.resize(usize::try_from(padded).map_err(io::Error::other)?, 0);
        self.out.write_all(&tail)?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        let path = plain(path)?;
        if path.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an archive entry needs a name"));
        }
        self.parents(&path)?;
        self.write(&path, mode, device, contents)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            if self.directories.insert(parent.to_owned()) {
                self.write(parent, DIRECTORY | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn write(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) -> io::Result<()> {
        let length = u32::try_from(contents.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: {} bytes, an entry holds 4 GiB", contents.len())))?;
        self.inode += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let builder = newc::Builder::new(path).ino(self.inode).mode(mode).nlink(links).rdev_major(major).rdev_minor(minor);
        let mut counted = Counted { out: &mut self.out, bytes: 0 };
        let mut writer = builder.write(&mut counted, length);
        writer.write_all(contents)?;
        writer.finish()?;
        self.written += counted.bytes;
        Ok(())
    }
}

/// Without leading `/` and `.` parts; `..` is refused, it would leave the archive.
fn plain(path: &str) -> io::Result<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} has a `..`"))),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.out.write(data)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Read;

    use super::*;

    /// Name, mode, contents of every entry, in order.
    pub(crate) fn list(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut rest, mut entries) = (archive, Vec::new());
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            entries.push((name, mode, contents));
            rest = reader.finish().unwrap();
        }
    }

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/file", 0o755, b"hello").unwrap();
        archive.file("a/b/empty", 0o644, b"").unwrap();
        archive.symlink("/a/link", "b/file").unwrap();
        archive.directory("/a/b/").unwrap();
        archive.character_device("/dev/console", 0o600, 5, 1).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn entries_come_back_with_their_parents_once() {
        let entries = list(&sample());
        let names: Vec<_> = entries.iter().map(|e| e.0.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/file", "a/b/empty", "a/link", "dev", "dev/console"]);
        assert_eq!(entries[2], ("a/b/file".into(), 0o100_755, b"hello".to_vec()));
        assert_eq!(entries[4], ("a/link".into(), 0o120_777, b"b/file".to_vec()));
        assert_eq!(entries[6].1, 0o020_600);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_and_whole_sectors() {
        assert_eq!(sample(), sample());
        assert_eq!(sample().len() % 512, 0);
        let two = [sample(), sample()].concat();
        assert_eq!(list(&two).len(), 7);
    }

    #[test]
    fn a_path_that_leaves_the_archive_is_refused() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("/a/../../b", 0o644, b"").is_err());
        assert!(archive.file("/", 0o644, b"").is_err());
    }

    /// The host's busybox reads it as the kernel would.
    #[test]
    fn another_reader_agrees() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("cpio").args(["-it", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().or_else(|_| {
            Command::new("busybox").args(["cpio", "-it"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        });
        let child = child.as_mut().expect("this test needs cpio or busybox (Debian packages of that name)");
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}
