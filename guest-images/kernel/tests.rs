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

/// A build tree as `make` leaves it, as far as dmavet looks at it.
fn build_tree(dir: &Path, config: &str) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"\x7fELF kernel").unwrap();
    let bzimage = image(&encoder.finish().unwrap(), 0x20f);
    let module = crate::modinfo::tests::module(&["depends=", "name=drv"]);
    for (file, contents) in [
        ("arch/x86/boot/bzImage", bzimage.as_slice()),
        (".config", config.as_bytes()),
        ("Makefile", b""),
        ("Module.symvers", b""),
        ("include/generated/autoconf.h", b""),
        ("include/generated/utsrelease.h", b"#define UTS_RELEASE \"9.9.9-test\"\n"),
        ("modules.builtin", b"kernel/drivers/virtio/virtio_pci.ko\n"),
        ("drivers/misc/drv.ko", &module),
    ] {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

#[test]
fn a_build_tree_is_image_modules_headers_and_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    let root = dir.path().join("linux");
    build_tree(&root, &config::tests::whole());
    let spec: KernelSpec = root.to_str().unwrap().parse().unwrap();
    let files = kernel(&cache, &spec, false, &|_| ()).unwrap();
    let root = fs::canonicalize(&root).unwrap();
    assert_eq!((files.release.as_str(), files.headers.as_ref(), files.modules_dir.as_ref()), ("9.9.9-test", Some(&root), Some(&root)));
    assert_eq!(files.config, Some(root.join(".config")));
    let modules = files.modules().unwrap();
    assert_eq!(modules.file("drv"), Some(root.join("drivers/misc/drv.ko").as_path()));
    assert!(modules.is_builtin("virtio_pci"));

    // The user's own words go before what the tree has.
    let installed = dir.path().join("root/lib/modules/9.9.9-test");
    fs::create_dir_all(&installed).unwrap();
    let spec = KernelSpec::Own { image: root.clone(), modules: Some(dir.path().join("root")), build: None };
    assert_eq!(kernel(&cache, &spec, false, &|_| ()).unwrap().modules_dir, Some(fs::canonicalize(installed).unwrap()));

    // Same configuration, same symbols, another kernel: what was built for the old one may not fit.
    let before = files.headers_identity().unwrap();
    fs::write(root.join("arch/x86/boot/bzImage"), image(b"\x7fELF other", 0x20f)).unwrap();
    let other = KernelSpec::Own { image: root.clone(), modules: None, build: None };
    assert!(kernel(&cache, &other, false, &|_| ()).is_err(), "its payload is not compressed");
    assert_ne!(KernelFiles { image_hash: Some("other".into()), ..files }.headers_identity().unwrap(), before);
}

#[test]
fn a_build_tree_that_cannot_be_a_guest_is_refused_before_anything_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    build_tree(dir.path(), &config::tests::whole().replace("CONFIG_PCI_MSI=y", "# CONFIG_PCI_MSI is not set").replace("KALLSYMS=y", "X=y"));
    let spec = KernelSpec::Own { image: dir.path().into(), modules: None, build: None };
    let told = kernel(&cache, &spec, false, &|_| ()).unwrap_err().to_string();
    assert!(told.contains(".config says:\n  CONFIG_PCI_MSI is not set: "), "{told}");

    fs::write(dir.path().join(".config"), config::tests::whole().replace("CONFIG_KALLSYMS=y\n", "")).unwrap();
    let steps = std::cell::RefCell::new(Vec::new());
    kernel(&cache, &spec, false, &|step| steps.borrow_mut().push(step.to_string())).unwrap();
    assert!(steps.borrow()[0].contains("CONFIG_KALLSYMS is not set"), "{steps:?}");
    fs::remove_file(dir.path().join("Module.symvers")).unwrap();
    assert!(kernel(&cache, &spec, false, &|_| ()).unwrap_err().to_string().contains("Module.symvers"));
    assert!(kernel(&cache, &KernelSpec::Own { image: dir.path().join("drivers"), modules: None, build: None }, false, &|_| ()).is_err());
}
