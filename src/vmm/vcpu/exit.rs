//! The `kvm_run` page: why a vCPU stopped, with the operand size of port accesses, which `kvm-ioctls` leaves out.

#![expect(unsafe_code, reason = "the kvm_run page is a C union shared with the kernel")]

use kvm_bindings::{KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MMIO, KVM_INTERNAL_ERROR_EMULATION};
use kvm_ioctls::{VcpuExit, VcpuFd};

/// Why `KVM_RUN` came back, without the borrow of the vCPU that [`VcpuExit`] carries.
#[derive(Debug)]
pub enum Reason {
    /// A port or memory access: see [`access`].
    Device,
    /// A kick or another signal.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// KVM cannot reach a page of RAM through the guest mapping.
    Fault,
    /// KVM's instruction emulator does not know an instruction, or could not make its access: the details.
    Emulation(String),
    /// A single step is over.
    Debug {
        /// What DR6 would say.
        dr6: u64,
    },
    /// Anything else, in words.
    Failed(String),
}

/// Runs the vCPU until it comes out of the guest.
pub fn run(fd: &mut VcpuFd) -> Reason {
    match fd.run() {
        Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..) | VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => return Reason::Device,
        Ok(VcpuExit::Intr) => return Reason::Interrupted,
        Ok(VcpuExit::Shutdown) => return Reason::Shutdown,
        Ok(VcpuExit::Debug(debug)) => return Reason::Debug { dr6: debug.dr6 },
        // What newer kernels add to EFAULT says no more than the instruction does.
        Ok(VcpuExit::MemoryFault { .. }) => return Reason::Fault,
        // Its details are in the run page, which is only free once this borrow ends.
        Ok(VcpuExit::InternalError) => {}
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            return Reason::Failed(format!("the hardware refused to enter the guest: reason {reason:#x} on host CPU {cpu}"));
        }
        Ok(other) => return Reason::Failed(format!("unexpected KVM exit {other:?}")),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Reason::Interrupted,
        Err(error) if error.errno() == libc::EFAULT => return Reason::Fault,
        Err(error) => return Reason::Failed(format!("KVM_RUN: {error}")),
    }
    match internal_error(fd) {
        (KVM_INTERNAL_ERROR_EMULATION, data) => Reason::Emulation(format!("KVM could not emulate an instruction, data {data:x?}")),
        (other, data) => Reason::Failed(format!("KVM internal error {other}, data {data:x?}")),
    }
}

/// An exit that a device of the VM answers.
#[derive(Debug)]
pub enum Access<'a> {
    /// A port access; `data` holds one or more items of `size` bytes (more than one for `rep ins` and `rep outs`).
    Port {
        /// The port.
        port: u16,
        /// Bytes of one item: 1, 2 or 4.
        size: usize,
        /// Direction.
        write: bool,
        /// The items: read them, or fill them in before the vCPU runs again.
        data: &'a mut [u8],
    },
    /// A memory access outside every memory slot.
    Mmio {
        /// Guest physical address.
        gpa: u64,
        /// Direction.
        write: bool,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
}

/// The device access the last `KVM_RUN` of `fd` stopped for, or `None` when it stopped for something else. `page` is the size of
/// the `kvm_run` mapping (`KVM_GET_VCPU_MMAP_SIZE`).
pub fn access(fd: &mut VcpuFd, page: usize) -> Option<Access<'_>> {
    let run = fd.get_kvm_run();
    match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: the exit reason says that `io` is the live member.
            let io = unsafe { run.__bindgen_anon_1.io };
            let size = usize::from(io.size).clamp(1, 4);
            let offset = usize::try_from(io.data_offset).ok()?;
            let len = usize::try_from(io.count).ok()?.checked_mul(size)?;
            if offset.checked_add(len)? > page {
                return None;
            }
            let base = std::ptr::from_mut(run).cast::<u8>();
            // SAFETY: `page` bytes from `run` on are mapped read-write for as long as `fd` lives, the range was checked to lie in
            // them, and the borrow of `fd` keeps anybody else from running the vCPU or making a second slice.
            let data = unsafe { std::slice::from_raw_parts_mut(base.add(offset), len) };
            Some(Access::Port { port: io.port, size, write: u32::from(io.direction) == KVM_EXIT_IO_OUT, data })
        }
        KVM_EXIT_MMIO => {
            // SAFETY: the exit reason says that `mmio` is the live member.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let len = usize::try_from(mmio.len).ok()?.min(mmio.data.len());
            Some(Access::Mmio { gpa: mmio.phys_addr, write: mmio.is_write != 0, data: mmio.data.get_mut(..len)? })
        }
        _ => None,
    }
}

/// Suberror and data words of a `KVM_EXIT_INTERNAL_ERROR`, for the message.
fn internal_error(fd: &mut VcpuFd) -> (u32, Vec<u64>) {
    let run = fd.get_kvm_run();
    // SAFETY: only called after an exit with that reason, which makes `internal` the live member.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = usize::try_from(internal.ndata).unwrap_or(0).min(internal.data.len());
    (internal.suberror, internal.data.iter().take(count).copied().collect())
}
