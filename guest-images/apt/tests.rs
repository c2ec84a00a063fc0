//! apt is played by a shell script that serves one package from a file, so that damage can be arranged.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Fake {
    dir: tempfile::TempDir,
    cache: Cache,
    tools: Tools,
}

/// `apt-get` copies `served` on download and counts downloads; `apt-cache` answers with `hash`.
fn fake(served: &[u8], hash: &str) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().display().to_string();
    let script = |name: &str, body: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.into_os_string()
    };
    let apt_get = script(
        "apt-get",
        &format!(
            "for a; do case $a in update|indextargets) exit $(cat {base}/update 2>/dev/null || echo 0);; download) \
             if [ -e {base}/say ]; then cat {base}/say >&2; exit 100; fi; echo x >> {base}/count; cp {base}/served ./p_1_amd64.deb;; esac; done"
        ),
    );
    let apt_cache = script(
        "apt-cache",
        &format!(
            "case \"$*\" in *' p') printf 'Package: p\\nVersion: 1:1\\nArchitecture: amd64\\nDepends: a (= 1) | b, c:any\\nSize: 4\\nSHA256: {hash}\\n\\nPackage: p\\nVersion: 0\\n';; *) echo 'E: No packages found' >&2; exit 100;; esac"
        ),
    );
    fs::write(dir.path().join("served"), served).unwrap();
    let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
    Fake { tools: Tools { apt_get, apt_cache, dpkg_deb: "/nonexistent/dpkg-deb".into() }, cache, dir }
}

impl Fake {
    fn archive(&self) -> Archive<'_> {
        let mirror = Mirror::of_this_machine(&self.tools).unwrap();
        let archive =
            Archive { cache: &self.cache, suite: "s".into(), state: self.cache.root().join("apt/s"), mirror, tools: self.tools.clone() };
        archive.write_state().unwrap();
        archive
    }

    fn downloads(&self) -> usize {
        fs::read_to_string(self.dir.path().join("count")).unwrap_or_default().lines().count()
    }
}

#[test]
fn a_package_is_described_fetched_once_and_checked() {
    let fake = fake(b"good", &hash::of_bytes(b"good"));
    let archive = fake.archive();
    let package = archive.package("p").unwrap();
    assert_eq!((package.version.as_str(), package.bytes), ("1:1", 4));
    assert_eq!(package.depends, ["a", "c"]);
    for _ in 0..2 {
        assert_eq!(fs::read(archive.fetch(&package, &|_| ()).unwrap()).unwrap(), b"good");
    }
    assert_eq!(fake.downloads(), 1);
}

#[test]
fn a_damaged_or_truncated_file_is_fetched_again() {
    let fake = fake(b"good", &hash::of_bytes(b"good"));
    let archive = fake.archive();
    let package = archive.package("p").unwrap();
    let path = archive.fetch(&package, &|_| ()).unwrap();
    for damage in [&b"goo"[..], b"goOd", b""] {
        fs::write(&path, damage).unwrap();
        let steps = std::cell::RefCell::new(Vec::new());
        archive.fetch(&package, &|step| steps.borrow_mut().push(step)).unwrap();
        assert!(matches!(steps.borrow()[..], [Step::Damaged { .. }, Step::Fetch { .. }]), "{steps:?}");
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }
    assert_eq!(fake.downloads(), 4);
}

#[test]
fn a_mirror_that_serves_the_wrong_bytes_is_refused_with_both_hashes() {
    let fake = fake(b"evil", &hash::of_bytes(b"good"));
    let archive = fake.archive();
    let error = archive.fetch(&archive.package("p").unwrap(), &|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&hash::of_bytes(b"evil")) && text.contains(&hash::of_bytes(b"good")), "{text}");
}

#[test]
fn an_unknown_package_says_which_suite() {
    let fake = fake(b"", "0");
    assert_eq!(fake.archive().package("q").unwrap_err().to_string(), "s has no package q");
}

#[test]
fn no_apt_says_what_else_can_be_done() {
    let fake = fake(b"", "0");
    let tools = Tools { apt_get: "/nonexistent/apt-get".into(), ..fake.tools.clone() };
    let error = Archive::open(&fake.cache, "sid", &tools, &|_| ()).unwrap_err();
    assert!(matches!(error, AptError::NoApt { .. }) && error.to_string().contains("--kernel"), "{error}");
}

#[test]
fn a_dead_mirror_is_named() {
    let fake = fake(b"", "0");
    let archive = fake.archive();
    fs::write(fake.dir.path().join("update"), "100").unwrap();
    let error = archive.update().unwrap_err();
    assert!(matches!(error, AptError::Mirror { .. }) && error.to_string().contains("http"), "{error}");
}

#[test]
fn apt_out_of_space_becomes_the_cache_error() {
    let fake = fake(b"good", &hash::of_bytes(b"good"));
    fs::write(fake.dir.path().join("say"), "E: Write error - write (28: No space left on device)\n").unwrap();
    let archive = fake.archive();
    let error = archive.fetch(&archive.package("p").unwrap(), &|_| ()).unwrap_err();
    assert!(matches!(error, AptError::Cache(CacheError::Full { .. })), "{error}");
}

#[test]
fn a_missing_unpacker_is_an_error_not_a_panic() {
    let fake = fake(b"good", &hash::of_bytes(b"good"));
    assert!(matches!(fake.archive().unpack(Path::new("/x.deb"), Path::new("/y")), Err(AptError::NoApt { .. })));
}
