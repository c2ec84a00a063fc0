//! The outer machine's archive: busybox, modules, this program, the jobs and the files they name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dmavet_images::cpio::Archive;
use dmavet_images::kernel::KernelFiles;
use dmavet_images::modinfo;
use rustix::fs::MemfdFlags;

use super::program::{LIBRARY_DIR, Program};
use super::{LabError, LabJob};

/// Where this program lies in the outer machine.
const PROGRAM: &str = "/lab/dmavet";

/// KVM and the channels. Each brings what it needs.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_console", "kvm_amd"];

/// Everything the archive is made of.
pub(super) struct Contents<'a> {
    pub(super) kernel: &'a KernelFiles,
    pub(super) busybox: &'a Path,
    pub(super) jobs: &'a [LabJob],
    pub(super) environment: &'a [(String, String)],
    pub(super) marker: &'a str,
}

fn fail(path: &Path, error: impl ToString) -> LabError {
    LabError::Pack { path: path.into(), detail: error.to_string() }
}

/// Packs into anonymous memory: nothing is left behind, whatever happens.
pub(super) fn pack(contents: &Contents<'_>) -> Result<File, LabError> {
    let memory = rustix::fs::memfd_create("dmavet-lab", MemfdFlags::CLOEXEC).map_err(|e| LabError::Channel(e.into()))?;
    let mut packer = Packer { archive: Archive::new(BufWriter::with_capacity(1 << 20, File::from(memory))), packed: BTreeSet::new() };
    packer.system(contents)?;
    for (index, job) in contents.jobs.iter().enumerate() {
        packer.job(index, job, contents.environment)?;
    }
    let whole = packer.archive.finish().and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error));
    let mut file = whole.map_err(LabError::Channel)?;
    file.rewind().map_err(LabError::Channel)?;
    Ok(file)
}

struct Packer {
    archive: Archive<BufWriter<File>>,
    packed: BTreeSet<PathBuf>,
}

impl Packer {
    fn put(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<(), LabError> {
        self.archive.file(path, mode, contents).map_err(|e| fail(Path::new(path), e))
    }

    fn system(&mut self, contents: &Contents<'_>) -> Result<(), LabError> {
        self.archive.character_device("/dev/console", 0o600, 5, 1).map_err(LabError::Channel)?;
        self.put("/init", 0o755, include_bytes!("init.sh"))?;
        let busybox = fs::read(contents.busybox).map_err(|e| fail(contents.busybox, e))?;
        self.put("/bin/busybox", 0o755, &busybox)?;
        self.archive.symlink("/bin/sh", "busybox").map_err(LabError::Channel)?;
        let mut list = String::new();
        for path in contents.kernel.modules()?.load_order(&MODULES.map(str::to_owned)).map_err(dmavet_images::kernel::KernelError::from)? {
            let stem = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or_default();
            let name = modinfo::normal(stem);
            let module = contents.kernel.read_module(&path)?;
            self.put(&format!("/lab/ko/{name}.ko"), 0o644, &module)?;
            list.push_str(&name);
            list.push('\n');
        }
        self.put("/lab/modules", 0o644, list.as_bytes())?;
        self.put("/lab/marker", 0o644, contents.marker.as_bytes())?;
        self.put("/lab/count", 0o644, contents.jobs.len().to_string().as_bytes())?;
        let program = Program::running().map_err(|e| fail(Path::new("/proc/self/exe"), e))?;
        self.put(PROGRAM, 0o755, &program.executable)?;
        if let Some((path, loader)) = &program.loader {
            self.put(path, 0o755, loader)?;
            // A job may name the loader or a library among its files; those then come in a second time and are the same.
            for (name, library) in &program.libraries {
                self.put(&format!("{LIBRARY_DIR}/{name}"), 0o644, library)?;
            }
        }
        Ok(())
    }

    fn job(&mut self, index: usize, job: &LabJob, environment: &[(String, String)]) -> Result<(), LabError> {
        self.put(&format!("/lab/jobs/{index}"), 0o644, &script(job, environment))?;
        self.put(&format!("/lab/jobs/{index}.dir"), 0o644, job.run_dir.as_os_str().as_bytes())?;
        for path in &job.files {
            let absolute = std::path::absolute(path).map_err(|e| fail(path, e))?;
            let meta = fs::metadata(&absolute).map_err(|e| fail(path, e))?;
            self.host(&absolute, &meta)?;
        }
        Ok(())
    }

    /// A host file or directory at the same path; each path once, whatever number of jobs name it.
    fn host(&mut self, path: &Path, meta: &fs::Metadata) -> Result<(), LabError> {
        let name = path.to_str().ok_or_else(|| fail(path, "its name is not UTF-8"))?;
        let wrap = |e: io::Error| fail(path, e);
        if meta.is_dir() {
            self.archive.directory(name).map_err(wrap)?;
            for entry in fs::read_dir(path).map_err(wrap)? {
                let entry = entry.map_err(wrap)?;
                let meta = entry.path().symlink_metadata().map_err(wrap)?;
                self.host(&entry.path(), &meta)?;
            }
            return Ok(());
        }
        if !self.packed.insert(path.to_path_buf()) {
            return Ok(());
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(wrap)?;
            let target = target.to_str().ok_or_else(|| fail(path, "its target's name is not UTF-8"))?;
            return self.archive.symlink(name, target).map_err(wrap);
        }
        if meta.is_file() {
            let contents = fs::read(path).map_err(wrap)?;
            return self.archive.file(name, meta.permissions().mode() & 0o7777, &contents).map_err(wrap);
        }
        // Pipes, sockets and devices of the host mean nothing there.
        Ok(())
    }
}

/// A job as a shell script: environment, then the program with its arguments, each quoted.
fn script(job: &LabJob, environment: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("export LD_LIBRARY_PATH={LIBRARY_DIR}\n").into_bytes();
    for (name, value) in environment {
        text.extend_from_slice(format!("export {name}=").as_bytes());
        quote(&mut text, value.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(format!("exec {PROGRAM}").as_bytes());
    for argument in &job.argv {
        text.push(b' ');
        quote(&mut text, argument.as_bytes());
    }
    text.push(b'\n');
    text
}

/// Single quotes keep every byte but the quote itself.
fn quote(out: &mut Vec<u8>, argument: &[u8]) {
    out.push(b'\'');
    for byte in argument {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn arguments_survive_the_shell() {
        for argument in ["plain", "a b", "it's", "$HOME `id` \\ \"x\"", "-n", "", "line\nbreak", "*"] {
            let mut quoted = b"printf '%s.' ".to_vec();
            quote(&mut quoted, argument.as_bytes());
            let output = Command::new("sh").arg("-c").arg(std::ffi::OsStr::from_bytes(&quoted)).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{argument}."));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let archive = Archive::new(BufWriter::new(tempfile::tempfile().unwrap()));
        let mut packer = Packer { archive, packed: BTreeSet::new() };
        let job = LabJob { argv: Vec::new(), files: vec!["/nonexistent/ko".into()], run_dir: "/r".into(), trace: None };
        let error = packer.job(0, &job, &[]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ko"), "{error}");
    }
}
