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
    /// What the guest does with the device.
    pub workload: &'static str,
    /// Calls that fail in the runs for error paths.
    pub faults: &'static [&'static str],
    /// Calls that are left out: a part of the function's name or of the call, and why nothing can reach them.
    pub outside: &'static [(&'static str, &'static str)],
}

const VIRTIO: &str = include_str!("workloads/virtio.sh");

/// Every third request of a disk or so, each of the four calls a request makes, and the filling of a receive ring.
const VIRTIO_FAULTS: &[&str] =
    &["map,nth=2", "map,nth=7", "map,nth=20", "map,nth=33", "map,nth=50", "map,nth=101", "map,nth=270", "map,nth=281"];

pub const DRIVERS: &[Driver] = &[
    Driver {
        name: "virtio_ring",
        kernel: "debian:6.1",
        folder: "drivers/virtio",
        files: &["virtio_ring.c"],
        headers: &[],
        devices: &["virtio-blk", "virtio-net"],
        workload: VIRTIO,
        faults: VIRTIO_FAULTS,
        outside: &[
            ("packed", "no device model offers packed virtqueues"),
            ("resize", "no device model can reset a single queue"),
            ("virtqueue_dma_", "for drivers that map themselves: this kernel has none"),
        ],
    },
    Driver {
        name: "virtio_net",
        kernel: "debian:6.1",
        folder: "drivers/net",
        files: &["virtio_net.c"],
        headers: &[],
        devices: &["virtio-net"],
        workload: VIRTIO,
        faults: VIRTIO_FAULTS,
        outside: &[
            ("xdp", "no XDP program is loaded"),
            ("virtnet_send_command", "the device model has no control queue"),
            ("add_recvbuf_small", "mergeable buffers take its place"),
            ("add_recvbuf_big", "mergeable buffers take its place"),
        ],
    },
    Driver {
        name: "virtio_blk",
        kernel: "debian:6.1",
        folder: "drivers/block",
        files: &["virtio_blk.c"],
        headers: &[],
        devices: &["virtio-blk"],
        workload: VIRTIO,
        faults: VIRTIO_FAULTS,
        outside: &[],
    },
];

impl Driver {
    /// Why a mutant is left out.
    pub fn leaves_out(&self, mutant: &Mutant) -> Option<&'static str> {
        self.outside.iter().find(|(part, _)| mutant.function.contains(part) || mutant.call.contains(part)).map(|(_, why)| *why)
    }

    /// Its files below the kernel's source.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        self.files.iter().chain(self.headers).map(|file| format!("{}/{file}", self.folder))
    }
}
