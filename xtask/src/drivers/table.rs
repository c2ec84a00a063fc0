//! The drivers whose mutants are made.

use super::rules::Mutant;

/// A driver of the distribution's kernel, and how to make it work.
#[derive(Debug)]
pub struct Driver {
    /// Module name.
    pub name: &'static str,
    /// Kernel whose module it is.
    pub kernel: &'static str,
    /// Its folder in the kernel's source.
    pub folder: &'static str,
    /// Its C files; each of their DMA calls is changed.
    pub files: &'static [&'static str],
    /// Headers of its own.
    pub headers: &'static [&'static str],
    /// Arguments of `dmavet run` that give it a device.
    pub devices: &'static [&'static str],
    /// The kernel's other modules that drive these devices, where nobody but the kernel's own modules says so.
    pub beside: &'static [&'static str],
    /// Calls that fail in the runs for error paths.
    pub faults: &'static [&'static str],
    /// Calls that are left out: a part of the function's name, of the call or of a condition around it, and why nothing can reach them.
    pub outside: &'static [(&'static str, &'static str)],
}

/// What the guest does with the devices.
pub const WORKLOAD: &str = include_str!("workload.sh");

/// Every third request of a disk or so, each of the four calls a request makes, and the filling of a receive ring.
const FAULTS: &[&str] = &["map,nth=2", "map,nth=7", "map,nth=20", "map,nth=33", "map,nth=50", "map,nth=101", "map,nth=270", "map,nth=281"];

pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "virtio_ring",
        kernel: "debian:6.1",
        folder: "drivers/virtio",
        files: &["virtio_ring.c"],
        headers: &[],
        devices: &["virtio-blk", "virtio-net"],
        beside: &["virtio_pci", "virtio_blk", "virtio_net"],
        faults: FAULTS,
        outside: &[
            ("packed", "no device model offers packed virtqueues"),
            ("resize", "no device model can reset a single queue"),
            ("vring_free_split", "for a queue that is resized, or made while kmalloc() fails"),
            ("virtqueue_dma_", "for drivers that map themselves: this kernel has none"),
        ],
    },
    Driver {
        name: "virtio_net",
        kernel: "debian:6.1",
        folder: "drivers/net",
        files: &["virtio_net.c"],
        headers: &[],
        devices: &["virtio-net", "virtio-net,mergeable=off"],
        beside: &["virtio_pci"],
        faults: FAULTS,
        outside: &[
            ("xdp", "no XDP program is loaded"),
            ("virtnet_send_command", "the device model has no control queue"),
            ("add_recvbuf_big", "without segmentation offloads buffers are mergeable or small"),
        ],
    },
    Driver {
        name: "virtio_blk",
        kernel: "debian:6.1",
        folder: "drivers/block",
        files: &["virtio_blk.c"],
        headers: &[],
        devices: &["virtio-blk"],
        beside: &["virtio_pci"],
        faults: FAULTS,
        outside: &[],
    },
    Driver {
        name: "nvme",
        kernel: "debian:6.1/generic",
        folder: "drivers/nvme/host",
        files: &["pci.c"],
        headers: &["nvme.h", "trace.h"],
        devices: &["nvme"],
        beside: &[],
        faults: FAULTS,
        outside: &[
            ("dbbuf", "the device model has no shadow doorbells"),
            ("sgl", "the device model has no SGLs"),
            ("metadata", "the device model has no metadata"),
            ("meta_dma", "the device model has no metadata"),
        ],
    },
    Driver {
        name: "e1000",
        kernel: "debian:6.1/generic",
        folder: "drivers/net/ethernet/intel/e1000",
        files: &["e1000_main.c", "e1000_hw.c", "e1000_ethtool.c", "e1000_param.c"],
        headers: &["e1000.h", "e1000_hw.h", "e1000_osdep.h"],
        devices: &["e1000"],
        beside: &[],
        faults: FAULTS,
        outside: &[
            ("jumbo", "frames have the usual size"),
            ("desc_rings", "the driver's own test, ethtool -t, is not run"),
            ("loopback", "the driver's own test, ethtool -t, is not run"),
            ("!e1000_check_64k_bound", "no buffer of these sizes crosses 64 KiB: what it lies in is aligned to a power of two"),
        ],
    },
];

impl Driver {
    /// Why a mutant is left out.
    pub fn leaves_out(&self, mutant: &Mutant) -> Option<&'static str> {
        let said = |part: &str| {
            mutant.function.contains(part) || mutant.call.contains(part) || mutant.heads.iter().any(|head| head.contains(part))
        };
        self.outside.iter().find(|(part, _)| said(part)).map(|(_, why)| *why)
    }

    /// Its files below the kernel's source.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.files.iter().chain(self.headers).map(|file| format!("{}/{file}", self.folder))
    }
}
