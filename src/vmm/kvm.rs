//! Opening KVM and making a VM, with errors that say what to do.

use kvm_bindings::{KVM_CAP_X86_DISABLE_EXITS, KVM_PIT_SPEAKER_DUMMY, KVM_X86_DISABLE_EXITS_HLT, kvm_enable_cap, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::layout;

/// Why KVM cannot be used. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device node does not exist.
    #[error("there is no /dev/kvm: load the kvm module, switch virtualisation on in the firmware, or run in the lab (`--host lab`)")]
    NoDevice,
    /// The device node may not be opened.
    #[error(
        "no permission to open /dev/kvm: add yourself to the group that owns it (often `sudo usermod -aG kvm $USER`, then log in again)"
    )]
    NoPermission,
    /// Opening failed for another reason.
    #[error("cannot open /dev/kvm: {0}; `ls -l /dev/kvm` and the kernel's log say more")]
    Open(kvm_ioctls::Error),
    /// Somebody else has the CPU's virtualisation.
    #[error("another hypervisor holds this CPU's virtualisation (VirtualBox, VMware): stop its machines, or run in the lab (`--host lab`)")]
    Busy,
    /// Another API version than the only stable one.
    #[error("/dev/kvm speaks API version {0}, not 12: the host kernel is too old")]
    ApiVersion(i32),
    /// A capability is missing.
    #[error("this KVM lacks {0}: a newer host kernel has it (5.4 or later is known to work)")]
    MissingCap(&'static str),
    /// Instructions of the guest's kernel are not run by the CPU.
    #[error("KVM here cannot run Linux ({0}): use a machine with VMX or SVM, or run in the lab (`--host lab`)")]
    CannotRunLinux(String),
    /// An ioctl failed.
    #[error("KVM: {what} failed: {source}")]
    Ioctl {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: kvm_ioctls::Error,
    },
}

impl KvmError {
    /// For `map_err`: names the ioctl that failed.
    pub fn ioctl(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Ioctl { what, source }
    }
}

const NEEDED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
];

/// Opens /dev/kvm and checks for what every VM here needs.
///
/// # Errors
/// One variant for each thing the user can do something about.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => KvmError::NoDevice,
        libc::EACCES | libc::EPERM => KvmError::NoPermission,
        _ => KvmError::Open(error),
    })?;
    match kvm.get_api_version() {
        12 => {}
        other => return Err(KvmError::ApiVersion(other)),
    }
    match NEEDED.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::MissingCap(name)),
        None => Ok(kvm),
    }
}

/// Makes a VM with KVM's own interrupt controllers and timer.
///
/// # Errors
/// When an ioctl fails.
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, KvmError> {
    let vm = kvm.create_vm().map_err(|error| match error.errno() {
        libc::EBUSY => KvmError::Busy,
        _ => KvmError::ioctl("KVM_CREATE_VM")(error),
    })?;
    vm.set_tss_address(layout::TSS).map_err(KvmError::ioctl("KVM_SET_TSS_ADDR"))?;
    vm.set_identity_map_address(layout::IDENTITY_MAP).map_err(KvmError::ioctl("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.create_irq_chip().map_err(KvmError::ioctl("KVM_CREATE_IRQCHIP"))?;
    // The tables announce no PIT and a kernel that knows its TSC uses none; those that look all the same find it in KVM, where a
    // port access costs no trip to this process. SPEAKER_DUMMY does the same for port 0x61.
    if kvm.check_extension(Cap::Pit2) {
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(KvmError::ioctl("KVM_CREATE_PIT2"))?;
    }
    Ok(vm)
}

/// Makes `KVM_RUN` fail where it would have a helper thread bring a page in and let the vCPU wait: a page that userfaultfd keeps out never
/// comes, and the vCPU would wait, try and wait again for ever (`kvm_can_do_async_pf` in arch/x86/kvm/x86.c). KVM does that to any guest
/// that can take an interrupt, unless its HLT does not exit. The price is that an idle vCPU keeps its host CPU. Before the first vCPU.
///
/// # Errors
/// When KVM lacks the capability.
pub fn keep_faults_synchronous(vm: &VmFd) -> Result<(), KvmError> {
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_DISABLE_EXITS, ..Default::default() };
    if let Some(which) = cap.args.first_mut() {
        *which = u64::from(KVM_X86_DISABLE_EXITS_HLT);
    }
    vm.enable_cap(&cap).map_err(KvmError::ioctl("KVM_ENABLE_CAP(KVM_CAP_X86_DISABLE_EXITS)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        let errors = [
            (KvmError::NoDevice, "load the kvm module"),
            (KvmError::NoPermission, "usermod"),
            (KvmError::Open(kvm_ioctls::Error::new(libc::EIO)), "ls -l /dev/kvm"),
            (KvmError::Busy, "stop its machines"),
            (KvmError::ApiVersion(11), "host kernel is too old"),
            (KvmError::MissingCap("KVM_CAP_IRQFD"), "newer host kernel"),
            (KvmError::CannotRunLinux("because".into()), "--host lab"),
        ];
        for (error, advice) in errors {
            let text = error.to_string();
            assert!(text.contains(advice), "{text}");
        }
    }
}
