//! What CPUID tells the guest.
//!
//! Base is what this KVM supports on this CPU. Topology is one socket of `cpus` cores without threads. Paravirtual features by
//! which KVM itself writes guest memory behind the watch's back (steal time, asynchronous page faults, PV EOI) are taken away.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use std::arch::x86_64::__cpuid;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX` (sic) of the KVM API.
const SIGNIFICANT_INDEX: u32 = 1;

/// Bits of CPUID leaf 0x4000_0001 EAX (Documentation/virt/kvm/x86/cpuid.rst) hidden from the guest.
const PARAVIRT_HIDDEN: u32 = 1 << 4 // ASYNC_PF
    | 1 << 5 // STEAL_TIME
    | 1 << 6 // PV_EOI
    | 1 << 9 // PV_TLB_FLUSH, works through the steal time page
    | 1 << 10 // ASYNC_PF_VMEXIT
    | 1 << 13 // PV_SCHED_YIELD, useless without the steal time page
    | 1 << 14 // ASYNC_PF_INT
    | 1 << 17; // MIGRATION_CONTROL

/// What [`for_cpu`] needs to know about the host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// KVM_CAP_TSC_DEADLINE_TIMER: not part of KVM_GET_SUPPORTED_CPUID.
    pub tsc_deadline: bool,
    /// KVM sees the guest's XSETBV, see [`intercepts_xsetbv`](crate::host::intercepts_xsetbv).
    pub xsave: bool,
}

/// Whether the hypervisor below is QEMU's software emulation, whose virtualization is not always complete.
pub fn below_software_emulation() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let below = __cpuid(1).ecx & HYPERVISOR != 0;
    let leaf = __cpuid(0x4000_0000);
    below && [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == b"TCGTCGTCGTCG"
}

/// Turns the supported CPUID into that of CPU `index` of `cpus`.
pub fn for_cpu(supported: &CpuId, host: Host, index: u8, cpus: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let id = u32::from(index);
    let bits = core_bits(cpus);
    let amd = is_amd(supported);
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            0x1 => leaf_1(entry, host, id, cpus),
            0x4 | 0x8000_001d => leaf_cache(entry, cpus),
            0xb | 0x1f => leaf_topology(entry, id, cpus, bits),
            0x7 if !host.xsave => hide_wide_vectors(entry),
            0xd if !host.xsave => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x4000_0001 => entry.eax &= !PARAVIRT_HIDDEN,
            0x8000_0001 => leaf_8000_0001(entry, amd, cpus),
            0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (bits << 12) | (u32::from(cpus) - 1),
            // Extended APIC id; one core for each compute unit, one node.
            0x8000_001e => {
                entry.eax = id;
                entry.ebx = id & 0xff;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    cpuid
}

/// Physical address bits of the guest (leaf 0x8000_0008 EAX 7:0), 36 where the leaf is missing.
pub fn address_bits(supported: &CpuId) -> u32 {
    supported.as_slice().iter().find(|e| e.function == 0x8000_0008).map_or(36, |e| e.eax & 0xff)
}

fn core_bits(cpus: u8) -> u32 {
    u32::from(cpus.max(1)).next_power_of_two().trailing_zeros()
}

fn leaf_1(entry: &mut kvm_cpuid_entry2, host: Host, id: u32, cpus: u8) {
    entry.ebx = (entry.ebx & 0x0000_ffff) | (u32::from(cpus) << 16) | (id << 24);
    entry.ecx |= 1 << 31; // hypervisor present
    entry.ecx &= !(1 << 5); // no VMX: nothing here nests
    entry.ecx = if host.tsc_deadline { entry.ecx | 1 << 24 } else { entry.ecx & !(1 << 24) };
    if !host.xsave {
        entry.ecx &= !(1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29); // FMA, XSAVE, OSXSAVE, AVX, F16C
    }
    entry.edx = if cpus > 1 { entry.edx | 1 << 28 } else { entry.edx & !(1 << 28) };
}

/// Whether the vendor is AMD or Hygon, who count cores in extended leaves.
fn is_amd(supported: &CpuId) -> bool {
    supported.as_slice().iter().any(|e| e.function == 0 && [b"Auth", b"Hygo"].into_iter().any(|start| e.ebx == u32::from_le_bytes(*start)))
}

fn leaf_8000_0001(entry: &mut kvm_cpuid_entry2, amd: bool, cpus: u8) {
    // Nothing here nests: without SVM the guest probes no hypervisor modules.
    entry.ecx &= !(1 << 2);
    // CmpLegacy: what HTT in leaf 1 counts are cores, not threads.
    entry.ecx = if amd && cpus > 1 { entry.ecx | 1 << 1 } else { entry.ecx & !(1 << 1) };
}

/// Leaf 7: what lives in state that only XSAVE saves.
fn hide_wide_vectors(entry: &mut kvm_cpuid_entry2) {
    match entry.index {
        0 => {
            // AVX2, MPX, AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL
            entry.ebx &= !(1 << 5 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31);
            // AVX512_VBMI, PKU, OSPKE, AVX512_VBMI2, CET_SS, VAES, VPCLMULQDQ, AVX512_VNNI, AVX512_BITALG, AVX512_VPOPCNTDQ
            entry.ecx &= !(1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14);
            // AVX512_4VNNIW, AVX512_4FMAPS, AVX512_VP2INTERSECT, CET_IBT, AMX_BF16, AVX512_FP16, AMX_TILE, AMX_INT8
            entry.edx &= !(1 << 2 | 1 << 3 | 1 << 8 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25);
        }
        _ => entry.eax = 0, // AVX_VNNI, AVX512_BF16 and younger
    }
}

/// Intel leaf 4 and AMD leaf 0x8000_001d: who shares a cache. Levels 1 and 2 are private, level 3 is shared by all.
fn leaf_cache(entry: &mut kvm_cpuid_entry2, cpus: u8) {
    let level = (entry.eax >> 5) & 7;
    let sharing = if level >= 3 { u32::from(cpus) - 1 } else { 0 };
    entry.eax = (entry.eax & !(0xfff << 14)) | (sharing << 14);
    if entry.function == 4 {
        entry.eax = (entry.eax & !(0x3f << 26)) | (u32::from(cpus.clamp(1, 64)) - 1) << 26;
    }
}

/// Leaves 0xb and 0x1f: level 0 threads (one), level 1 cores.
fn leaf_topology(entry: &mut kvm_cpuid_entry2, id: u32, cpus: u8, bits: u32) {
    entry.flags |= SIGNIFICANT_INDEX;
    entry.edx = id;
    (entry.eax, entry.ebx, entry.ecx) = match entry.index {
        0 => (0, 1, 1 << 8),
        1 => (bits, u32::from(cpus), 2 << 8 | 1),
        n => (0, 0, n & 0xff),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX, ..Default::default() }
    }

    fn sample() -> CpuId {
        let leaves: Vec<_> =
            [(1, 0), (7, 0), (0xd, 0), (0xb, 0), (0xb, 1), (0x4000_0001, 0), (0x8000_0001, 0), (0x8000_0008, 0), (0x8000_001e, 0)]
                .into_iter()
                .map(|(f, i)| entry(f, i))
                .collect();
        CpuId::from_entries(&leaves).unwrap()
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid.as_slice().iter().find(|e| e.function == function && e.index == index).unwrap()
    }

    #[test]
    fn kvm_never_writes_pages_of_its_own() {
        let cpuid = for_cpu(&sample(), Host { tsc_deadline: true, xsave: true }, 0, 1);
        let features = find(&cpuid, 0x4000_0001, 0).eax;
        assert_eq!(features & (1 << 4 | 1 << 5 | 1 << 6 | 1 << 14), 0);
        assert_ne!(features & (1 << 3), 0, "kvmclock stays");
    }

    #[test]
    fn ids_and_counts_agree_between_leaves() {
        for cpus in 1..=8u8 {
            for index in 0..cpus {
                let cpuid = for_cpu(&sample(), Host { tsc_deadline: false, xsave: false }, index, cpus);
                let one = find(&cpuid, 1, 0);
                assert_eq!(one.ebx >> 24, u32::from(index));
                assert_eq!(one.ecx & (1 << 24 | 1 << 26 | 1 << 28), 0);
                assert_eq!(find(&cpuid, 0xd, 0).eax, 0);
                assert_eq!(find(&cpuid, 7, 0).ebx & 1 << 5, 0);
                assert_eq!(one.edx & (1 << 28) != 0, cpus > 1);
                let cores = find(&cpuid, 0xb, 1);
                assert_eq!((cores.edx, cores.ebx), (u32::from(index), u32::from(cpus)));
                assert!(1u32 << cores.eax >= u32::from(cpus));
                assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx & 0xff, u32::from(cpus) - 1);
                assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, u32::from(index));
            }
        }
    }
}
