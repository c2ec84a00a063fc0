use std::io::Write;

use super::*;
use crate::bzimage::tests::image;

#[test]
fn names_are_read_and_printed_back() {
    for (text, printed) in [("debian", "debian:6.1"), ("debian:6.12", "debian:6.12"), ("debian:7.2/generic", "debian:7.2/generic")] {
        assert_eq!(text.parse::<KernelSpec>().unwrap().to_string(), printed);
    }
    assert!(matches!("./bzImage".parse::<KernelSpec>().unwrap(), KernelSpec::Own { .. }));
    for bad in ["debian:5.10", "debian:6.1/rt", "fedora"] {
        assert!(bad.parse::<KernelSpec>().unwrap_err().to_string().contains("debian:6.12"), "{bad}");
    }
}

#[test]
fn the_general_purpose_flavour_has_more_drivers() {
    let more = |text: &str| text.parse::<KernelSpec>().unwrap().with_more_drivers().map(|spec| spec.to_string());
    assert_eq!(more("debian:6.12").as_deref(), Some("debian:6.12/generic"));
    assert_eq!(more("debian:6.12/generic"), None);
    assert_eq!(more("./bzImage"), None);
    for (spec, purpose) in KernelSpec::named() {
        assert_eq!(spec.to_string().parse::<KernelSpec>().unwrap(), spec);
        assert_eq!(more(&spec.to_string()).is_none(), purpose.contains("general-purpose"), "{spec}");
    }
}

#[test]
fn an_own_kernel_is_unpacked_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"\x7fELF kernel").unwrap();
    let bz = dir.path().join("bzImage");
    fs::write(&bz, image(&encoder.finish().unwrap(), 0x20f)).unwrap();
    let spec = KernelSpec::Own { image: bz.clone(), modules: None, build: None };
    let steps = std::cell::RefCell::new(Vec::new());
    for _ in 0..2 {
        let files = kernel(&cache, &spec, false, &|step| steps.borrow_mut().push(step)).unwrap();
        assert_eq!(files.release, "9.9.9-test");
        assert_eq!(fs::read(&files.vmlinux).unwrap(), b"\x7fELF kernel");
        assert!(files.headers.is_none() && files.modules().unwrap().is_empty());
    }
    assert_eq!(steps.borrow().len(), 1, "{steps:?}");
    fs::write(&bz, "no kernel").unwrap();
    assert!(matches!(kernel(&cache, &spec, false, &|_| ()), Err(KernelError::NoRelease(_))));
    let missing = KernelSpec::Own { image: dir.path().join("gone"), modules: None, build: None };
    assert!(matches!(kernel(&cache, &missing, false, &|_| ()), Err(KernelError::Read { .. })));
}
