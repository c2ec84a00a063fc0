use super::*;

fn machine(cpus: u8) -> Machine {
    let node = |number: u16| {
        let start = layout::PLATFORM.start + u64::from(number) * layout::PLATFORM_STRIDE;
        Node { number, compatible: "dmavet,ncdma", window: start..start + 0x1000, gsi: layout::PLATFORM_GSI + u32::from(number) }
    };
    Machine { cpus, window64: layout::WINDOW64, nodes: (0..4).map(node).collect() }
}

fn le32(image: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap())
}

fn le64(image: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(image[offset..offset + 8].try_into().unwrap())
}

fn at(address: u64) -> usize {
    usize::try_from(address - boot::ACPI).unwrap()
}

/// The table at `address`, checked for length and sum.
fn table<'a>(image: &'a [u8], address: u64, signature: &[u8]) -> &'a [u8] {
    let start = at(address);
    let len = usize::try_from(le32(image, start + 4)).unwrap();
    let table = &image[start..start + len];
    assert_eq!(&table[..4], signature);
    assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "checksum of {}", String::from_utf8_lossy(signature));
    table
}

#[test]
fn every_table_is_reached_from_the_rsdp_and_sums_to_zero() {
    let (image, rsdp) = build(&machine(3));
    let root = &image[at(rsdp)..at(rsdp) + 36];
    assert_eq!(&root[..8], b"RSD PTR ");
    assert_eq!(root[..20].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(root.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let xsdt = table(&image, le64(root, 24), b"XSDT");
    let entries: Vec<u64> = xsdt[36..].chunks_exact(8).map(|entry| le64(entry, 0)).collect();
    let [fadt, madt, mcfg] = entries[..] else { panic!("{entries:x?}") };
    let fadt = table(&image, fadt, b"FACP");
    table(&image, le64(fadt, 140), b"DSDT");
    let flags = le32(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
    assert_ne!(flags & 1 << 10, 0, "reset register");
    assert_eq!(le64(fadt, 116 + 4), u64::from(POWER_PORTS + power::RESET));
    assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]), BOOT_ARCH);
    let madt = table(&image, madt, b"APIC");
    let mut kinds = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, len, ..] = *rest {
        kinds.push(kind);
        rest = &rest[usize::from(len)..];
    }
    assert_eq!(kinds, [0, 0, 0, 1], "three CPUs and an I/O APIC");
    let mcfg = table(&image, mcfg, b"MCFG");
    assert_eq!(le64(mcfg, 44), ECAM.start);
}

#[test]
fn the_largest_machine_fits() {
    let (image, _) = build(&machine(crate::VmConfig::MAX_CPUS));
    assert!(image.len() as u64 <= boot::RESET_VECTOR - boot::ACPI, "{} bytes", image.len());
}

#[test]
fn every_platform_device_is_a_node_of_its_own() {
    let (image, _) = build(&machine(1));
    let count = |what: &[u8]| image.windows(what.len()).filter(|window| *window == what).count();
    for (what, times) in [(&b"PRP0001"[..], 4), (b"ND00", 1), (b"ND03", 1), (b"dmavet,ncdma", 4), (b"dmavet,node", 4)] {
        assert_eq!(count(what), times, "{}", String::from_utf8_lossy(what));
    }
    // A fixed 32-bit window and an extended interrupt descriptor: consumer, level, high, exclusive (ACPI 6.5 sections 6.4.3.4 and 6.4.3.6).
    assert_eq!(count(&[0x86, 9, 0, 1, 0, 0, 1, 0xfd, 0, 0x10, 0, 0, 0x89, 6, 0, 1, 1, 21, 0, 0, 0]), 1);
    // The bytes of the UUID, its first three parts in little-endian order.
    assert_eq!(count(&[0x14, 0xd8, 0xff, 0xda, 0xba, 0x6e, 0x8c, 0x4d, 0x8a, 0x91, 0xbc, 0x9b, 0xbf, 0x4a, 0xa3, 0x01]), 4);
}
