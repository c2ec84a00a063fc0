use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(&dir.path().join("a/b"))).unwrap();
    (dir, cache)
}

#[test]
fn an_explicit_place_wins_and_is_created() {
    let (dir, cache) = cache();
    assert_eq!(cache.root(), fs::canonicalize(dir.path()).unwrap().join("a/b"));
}

#[test]
fn a_second_builder_waits_and_says_so() {
    let (_dir, cache) = cache();
    let first = cache.lock("s", &|_| ()).unwrap();
    let (said, heard) = mpsc::channel();
    let other = cache.clone();
    let thread = std::thread::spawn(move || {
        let said_waiting = said.clone();
        let _second = other.lock("s", &move |step| said_waiting.send(step).unwrap()).unwrap();
        drop(said);
    });
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), Step::WaitingForLock);
    assert!(!thread.is_finished());
    drop(first);
    thread.join().unwrap();
}

#[test]
fn different_subjects_do_not_wait_for_each_other() {
    let (_dir, cache) = cache();
    let first = cache.lock("suite-sid", &|_| ()).unwrap();
    let kept = first.staging().unwrap();
    let _second = cache.lock("module-00", &|step| panic!("{step}")).unwrap();
    assert!(kept.path().exists());
}

#[test]
fn leftovers_of_a_dead_builder_go_when_the_next_one_starts() {
    let (_dir, cache) = cache();
    let builder = cache.lock("s", &|_| ()).unwrap();
    let left = builder.staging().unwrap().keep();
    drop(builder);
    assert!(left.exists());
    let _next = cache.lock("s", &|_| ()).unwrap();
    assert!(!left.exists());
}

#[test]
fn a_published_directory_replaces_the_old_one_whole() {
    let (_dir, cache) = cache();
    let builder = cache.lock("s", &|_| ()).unwrap();
    let target = cache.entries("kernels").join("x");
    for contents in ["one", "two"] {
        let staged = builder.staging().unwrap();
        fs::write(staged.path().join(contents), contents).unwrap();
        builder.publish_dir(staged, &target).unwrap();
    }
    assert!(!target.join("one").exists());
    assert_eq!(fs::read_to_string(target.join("two")).unwrap(), "two");
}

#[test]
fn a_full_disk_is_its_own_error_with_path_and_remedy() {
    let error = CacheError::from_io("/cache/vmlinux", io::Error::from_raw_os_error(28));
    let text = error.to_string();
    assert!(matches!(error, CacheError::Full { .. }), "{error:?}");
    assert!(text.contains("/cache/vmlinux") && text.contains("DMAVET_CACHE") && text.contains("350 MB"), "{text}");
}

/// The real thing: /dev/full gives ENOSPC on every write, whoever runs the test.
#[test]
fn a_real_enospc_arrives_as_full() {
    let error = fs::write("/dev/full", b"x").map_err(|e| CacheError::from_io("/dev/full", e)).unwrap_err();
    assert!(matches!(error, CacheError::Full { .. }), "{error:?}");
}

#[test]
fn a_place_without_permission_names_the_variable() {
    let error = CacheError::from_io("/nowhere", io::Error::from(io::ErrorKind::PermissionDenied));
    assert!(error.to_string().contains("DMAVET_CACHE"), "{error}");
}

#[test]
fn names_from_outside_become_one_component() {
    assert_eq!(component("1:6.1/../x"), "1_6.1_.._x");
}
