//! The QEMU process of the outer machine: started with its channels, always reaped.

#![expect(unsafe_code, reason = "pre_exec: the child must inherit its channels and die with its parent")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, getppid};

use super::LabError;
use super::clock;
use super::outer::Program;

/// Kernel command line of the outer machine. Beyond quiet: nothing that only costs time in software emulation (mitigations, address
/// randomisation, clock calibration, waiting for entropy and grace periods).
const APPEND: &str = "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable no_timer_check nowatchdog audit=0 \
                      8250.nr_uarts=1 random.trust_cpu=on rcupdate.rcu_expedited=1";

/// Number of channels.
pub(super) const PORTS: usize = 5;

/// A running outer machine. Dropping it kills and reaps the process.
#[derive(Debug)]
pub(super) struct Qemu {
    child: Child,
    /// Host ends of the channels, port 1 first.
    pub(super) ports: Option<[UnixStream; PORTS]>,
    /// The machine's serial console.
    pub(super) console: Option<ChildStdout>,
    /// QEMU's own complaints.
    pub(super) stderr: Option<ChildStderr>,
}

impl Qemu {
    /// Starts the machine. The archive is read through the descriptor, so it needs no name.
    pub(super) fn start(program: &Program, cpus: u8, kernel: &Path, archive: &File, memory_mb: u32) -> Result<Self, LabError> {
        let mut ours = Vec::new();
        let mut theirs: Vec<OwnedFd> = vec![archive.as_fd().try_clone_to_owned().map_err(LabError::Channel)?];
        // With a thread for each of several CPUs QEMU loses interrupts, single steps and whole guests of the KVM in it; with one for all it does not.
        let (accelerator, append) = match cpus {
            1 => ("tcg", APPEND.to_owned()),
            _ => ("tcg,thread=single", format!("{APPEND} tsc_early_khz={}", clock::tsc_khz())),
        };
        let mut command = Command::new(&program.path);
        command
            .args(["-accel", accelerator, "-cpu", program.cpu, "-smp", &cpus.to_string(), "-m"])
            .arg(memory_mb.to_string())
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(format!("/proc/self/fd/{}", theirs.iter().map(AsRawFd::as_raw_fd).next().unwrap_or_default()))
            .arg("-append")
            .arg(append)
            .args(["-device", "virtio-serial-pci,max_ports=8"]);
        for port in 1..=PORTS {
            let (host, guest) = UnixStream::pair().map_err(LabError::Channel)?;
            let guest = OwnedFd::from(guest);
            command.arg("-chardev").arg(format!("socket,id=port{port},fd={}", guest.as_raw_fd()));
            command.arg("-device").arg(format!("virtserialport,chardev=port{port},nr={port}"));
            ours.push(host);
            theirs.push(guest);
        }
        let child = spawn(&mut command, theirs)?;
        let ports = <[UnixStream; PORTS]>::try_from(ours).ok();
        Ok(Self::own(child, ports))
    }

    fn own(mut child: Child, ports: Option<[UnixStream; PORTS]>) -> Self {
        Self { console: child.stdout.take(), stderr: child.stderr.take(), ports, child }
    }

    /// Whether QEMU has ended, and how.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if it has ended already; then there is nothing to kill, only to reap.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command, inherited: Vec<OwnedFd>) -> Result<Child, LabError> {
    let parent = rustix::process::getpid();
    let descriptors = inherited;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Out of the terminal's foreground group: Ctrl-C is for us, we end QEMU in our own order.
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes three kinds of system call (prctl, getppid, fcntl) on values captured before the
    // fork; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || prepare(parent, &descriptors));
    }
    command.spawn().map_err(|e| if e.kind() == io::ErrorKind::NotFound { LabError::NoQemu } else { LabError::Spawn(e) })
}

/// In the child: die when the parent's thread ends, keep the channels across exec.
fn prepare(parent: Pid, descriptors: &[OwnedFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before that call; then nobody would ever send the signal.
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    descriptors.iter().try_for_each(|fd| rustix::io::fcntl_setfd(fd, FdFlags::empty()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_kills_and_reaps() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut qemu = Qemu::own(spawn(&mut command, Vec::new()).unwrap(), None);
        let pid = qemu.child.id();
        assert!(qemu.ended().is_none());
        drop(qemu);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_missing_qemu_names_the_package() {
        let error = spawn(&mut Command::new("/nonexistent/qemu-system-x86_64"), Vec::new()).unwrap_err();
        assert!(matches!(error, LabError::NoQemu) && error.to_string().contains("package qemu-system-x86"), "{error}");
    }

    #[test]
    fn descriptors_reach_the_child_under_the_same_number() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
        let here = std::fs::read_link(&path).unwrap();
        let mut command = Command::new("readlink");
        let mut qemu = Qemu::own(spawn(command.arg(&path), vec![theirs.into()]).unwrap(), None);
        let mut text = String::new();
        io::Read::read_to_string(&mut qemu.console.take().unwrap(), &mut text).unwrap();
        assert_eq!(Path::new(text.trim_end()), here);
        qemu.child.wait().unwrap();
    }
}
