//! The same driver on the same kernel without dmavet: plain QEMU, all DMA through bounce buffers (`swiotlb=force`).
//!
//! That is what a driver's author can have on any PC. It shows a mistake only if the workload notices it.

use super::build::Prepared;
use super::table::WORKLOAD;
use dmavet_images::cache::Cache;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The guest's first process.
const INIT: &str = include_str!("plain.sh");

/// Beyond what the column is about: nothing that only costs time in software emulation.
const APPEND: &str = "console=ttyS0 panic=-1 quiet swiotlb=force mitigations=off nokaslr tsc=reliable no_timer_check nowatchdog \
                      random.trust_cpu=on rcupdate.rcu_expedited=1";

/// The longest a guest may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// What came of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noticed {
    /// It was content, and the driver could be unloaded.
    No,
    /// It said that something was lost or wrong.
    Failed,
    /// The guest died or never came to the end.
    Hung,
}

impl Noticed {
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Failed => "workload fails",
            Self::Hung => "guest dies or hangs",
        }
    }

    /// From the console of a guest that is gone.
    fn read(console: &str) -> Self {
        let told = |what: &str| console.lines().any(|line| line.trim_end().ends_with(what));
        let workload = console.lines().find_map(|line| line.trim_end().split_once("dmavet-plain: workload ")).map(|(_, status)| status);
        match workload {
            Some("0") if told("dmavet-plain: end") => Self::No,
            Some("0") | None => Self::Hung,
            Some(_) => Self::Failed,
        }
    }
}

/// A driver's module to run.
pub struct Plain<'a> {
    pub prepared: &'a Prepared,
    pub module: &'a Path,
}

/// Runs all of them, `at_once` at a time; the results are in their order.
pub fn all(wanted: &[Plain<'_>], work: &Path, cache: &Cache, at_once: usize) -> Result<Vec<Noticed>, String> {
    let folder = work.join("plain");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Relaxed);
                    let Some(plain) = wanted.get(n) else { break };
                    let result = one(plain, &folder.join(n.to_string()), cache);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

fn one(plain: &Plain<'_>, folder: &Path, cache: &Cache) -> Result<Noticed, String> {
    let io = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(folder).map_err(|e| io(folder, e))?;
    let init = folder.join("init");
    fs::write(&init, INIT).map_err(|e| io(&init, e))?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(|e| io(&init, e))?;
    let initrd = folder.join("initramfs.cpio");
    // A later file of the same name takes the place of the one before.
    plain.prepared.pack(plain.module, WORKLOAD, &[(&init, "/init")], cache, &initrd)?;
    let console = folder.join("console.log");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-M", "pc", "-accel", "tcg", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(plain.prepared.bzimage()).arg("-initrd").arg(&initrd).args(["-append", APPEND]);
    command.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(File::create(&console).map_err(|e| io(&console, e))?);
    for (n, device) in plain.prepared.driver.devices.iter().enumerate() {
        let disk = folder.join(format!("disk{n}"));
        File::create(&disk).and_then(|file| file.set_len(64 << 20)).map_err(|e| io(&disk, e))?;
        command.args(arguments(n, device, &disk)?);
    }
    let ended = wait(command.spawn().map_err(|e| format!("qemu-system-x86_64: {e}"))?)?;
    let text = fs::read(&console).map_err(|e| io(&console, e))?;
    let noticed = Noticed::read(&String::from_utf8_lossy(&text));
    for n in 0..plain.prepared.driver.devices.len() {
        let _ = fs::remove_file(folder.join(format!("disk{n}")));
    }
    let _ = fs::remove_file(&initrd);
    if !ended {
        let mut file = File::options().append(true).open(&console).map_err(|e| io(&console, e))?;
        writeln!(file, "\n[ended after {} s]", PATIENCE.as_secs()).map_err(|e| io(&console, e))?;
    }
    Ok(noticed)
}

/// Whether it ended on its own.
fn wait(mut child: Child) -> Result<bool, String> {
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if !status.success() => return Err(format!("qemu-system-x86_64: {status}")),
            Some(_) => return Ok(true),
            None if start.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(false);
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// QEMU's device for one of dmavet's, with the same features as far as the driver's DMA depends on them.
fn arguments(n: usize, device: &str, disk: &Path) -> Result<Vec<String>, String> {
    const VIRTIO: &str = "iommu_platform=on,disable-legacy=on";
    /// dmavet's model has no offloads and no control queue.
    const NET: [&str; 18] = [
        "csum",
        "gso",
        "guest_csum",
        "guest_tso4",
        "guest_tso6",
        "guest_ecn",
        "guest_ufo",
        "host_tso4",
        "host_tso6",
        "host_ecn",
        "host_ufo",
        "ctrl_vq",
        "ctrl_rx",
        "ctrl_vlan",
        "ctrl_rx_extra",
        "ctrl_mac_addr",
        "ctrl_guest_offloads",
        "guest_announce",
    ];
    let disk = |front: String| {
        let back = format!("if=none,id=disk{n},format=raw,cache=unsafe,discard=unmap,file={}", disk.display());
        vec!["-drive".to_owned(), back, "-device".to_owned(), format!("{front},drive=disk{n}")]
    };
    let net = |front: String| {
        let back = format!("user,id=net{n},net=192.0.2.0/24,host=192.0.2.1,dns=192.0.2.3,guestfwd=tcp:192.0.2.7:7-cmd:cat");
        vec!["-netdev".to_owned(), back, "-device".to_owned(), format!("{front},netdev=net{n},romfile=")]
    };
    let (name, keys) = device.split_once(',').unwrap_or((device, ""));
    match name {
        "virtio-blk" => Ok(disk(format!("virtio-blk-pci,{VIRTIO}"))),
        "nvme" => Ok(disk(format!("nvme,serial=dmavet{n}"))),
        "e1000" => Ok(net("e1000".into())),
        "virtio-net" => {
            let mergeable = if keys.contains("mergeable=off") { "off" } else { "on" };
            let off: String = NET.iter().map(|key| format!(",{key}=off")).collect();
            Ok(net(format!("virtio-net-pci,{VIRTIO},mrg_rxbuf={mergeable}{off}")))
        }
        other => Err(format!("no device of QEMU is known for {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tells_what_came_of_it() {
        let read = |text: &str| Noticed::read(text);
        assert_eq!(read("x\r\ndmavet-plain: workload 0\r\ndmavet-plain: end\r\n"), Noticed::No);
        assert_eq!(read("vda: read\r\ndmavet-plain: workload 1\r\n"), Noticed::Failed);
        assert_eq!(read("dmavet-plain: workload 0\r\nBUG: unable to handle\r\n"), Noticed::Hung);
        assert_eq!(read("Kernel panic - not syncing\r\n"), Noticed::Hung);
    }

    #[test]
    fn every_driver_has_its_devices() {
        for device in super::super::table::DRIVERS.iter().flat_map(|driver| driver.devices) {
            assert!(arguments(1, device, Path::new("/d")).is_ok(), "{device}");
        }
        assert!(arguments(0, "toaster", Path::new("/d")).is_err());
    }
}
