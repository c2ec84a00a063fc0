//! A user's mistakes and a guest's misfortunes: each gets one clear message and its own exit code.

use crate::tool::{Ran, batch, dmavet, findings};
use dmavet_images::module::ModuleSource;
use std::path::Path;
use std::process::Command;

fn assert_told(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.all());
    for word in words {
        assert!(ran.stderr.contains(word), "the message lacks {word:?}: {}", ran.all());
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.all());
}

#[test]
fn no_such_kernel() {
    assert_told(&dmavet(["run", "--kernel", "/nowhere/bzImage"]), 2, &["/nowhere/bzImage", "debian:6.1"]);
    assert_told(&dmavet(["run", "--device", "e1000"]), 2, &["no driver e1000", "--kernel debian:6.1/generic"]);
    assert_told(&dmavet(["run", "--kernel", "debian:2.4"]), 2, &["debian:2.4", "6.1"]);
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("bzImage");
    std::fs::write(&text, "not a kernel").unwrap();
    assert_told(&dmavet(["run", "--kernel", text.to_str().unwrap(), "--", "true"]), 2, &["bzImage", "release"]);
}

#[test]
fn wrong_arguments() {
    assert_told(&dmavet(["run", "--cpus", "0"]), 2, &["--cpus"]);
    assert_told(&dmavet(["run", "--line-size", "48"]), 2, &["32, 64 or 128"]);
    assert_told(&dmavet(["run", "--stop-on", "errors"]), 2, &["--stop-on", "DV201", "error, warning or note"]);
    assert_told(&dmavet(["run", "--module", "/nowhere/x.ko"]), 2, &["/nowhere/x.ko"]);
    assert_told(&dmavet(["run", "--module", "ref:ncdma/no-such-variant"]), 2, &["no-such-variant", "list variants"]);
    assert_told(&dmavet(["run", "--device", "toaster"]), 2, &["toaster", "ncdma"]);
    assert_told(&dmavet(["run", "--device", "ncdma,mask=99"]), 2, &["mask", "64"]);
    assert_told(&dmavet(["run", "--fault", "map"]), 2, &["--fault", "nth is missing", "KIND,nth=N"]);
    assert_told(&dmavet(["run", "--device", "virtio-blk,file=/nowhere/disk"]), 2, &["/nowhere/disk"]);
    assert_told(&dmavet(["run", "--device", "virtio-blk,size=0"]), 2, &["size=0", "1 to 16384"]);
    let five = [&["run", "--module", "ref:ncdma"][..], &["--device", "ncdma-platform"].repeat(5)].concat();
    assert_told(&dmavet(five), 2, &["5 platform devices", "room for 4"]);
    assert_told(&dmavet(["run", "--device", "virtio-net,mergeable=maybe"]), 2, &["mergeable=maybe", "on or off"]);
    assert_told(&dmavet(["run", "--module", "ref:ncdma", "--script", "/nowhere/s.sh"]), 2, &["/nowhere/s.sh"]);
    assert_told(&dmavet(["explain", "DV999"]), 2, &["DV999", "list rules"]);
    assert_told(&dmavet(["batch", "/nowhere/batch"]), 2, &["/nowhere/batch"]);
}

#[test]
fn a_module_built_for_another_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(crate::tool::build(&ModuleSource::ncdma()).guest_ko).unwrap();
    let tag = b"vermagic=6.1.0-";
    let at = bytes.windows(tag.len()).position(|w| w == tag).expect("vermagic") + tag.len();
    bytes[at..at + 2].copy_from_slice(b"00");
    let module = dir.path().join("other.ko");
    std::fs::write(&module, bytes).unwrap();
    assert_told(&dmavet(["run", "--module", module.to_str().unwrap(), "--", "true"]), 2, &["other.ko", "6.1.0-00", "built for"]);
}

/// Runs `script` in a mount namespace of its own, where it may hide parts of the machine.
fn in_namespace(script: &str) -> Ran {
    let ran: Ran = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script])
        .env("DMAVET_BINARY", crate::tool::binary())
        .output()
        .expect("unshare (package util-linux) is needed for this test")
        .into();
    assert!(!ran.stderr.contains("unshare:"), "this test needs the right to make a mount namespace (run it as root): {}", ran.all());
    ran
}

#[test]
fn no_dev_kvm() {
    let ran = in_namespace(r#"mount -t tmpfs none /dev && exec "$DMAVET_BINARY" run --host kvm --module ref:ncdma"#);
    assert_told(&ran, 6, &["/dev/kvm", "--host lab"]);
}

#[test]
fn no_permission_on_dev_kvm() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("dmavet");
    std::fs::copy(crate::tool::binary(), &copy).unwrap();
    let script = format!(
        r#"chmod 711 {0} && chmod 755 {0}/dmavet && mkdir {0}/empty && mknod {0}/kvm c 10 232 && chmod 600 {0}/kvm && mount --bind {0}/kvm /dev/kvm && cd / &&
        exec setpriv --reuid 65534 --regid 65534 --clear-groups {0}/dmavet doctor --cache-dir {0}/empty"#,
        dir.path().display()
    );
    let ran = in_namespace(&script);
    assert!(ran.all().contains("permission") && ran.all().contains("/dev/kvm"), "{}", ran.all());
}

#[test]
fn disk_full_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"mount -t tmpfs -o size=256k none {0} && exec "$DMAVET_BINARY" --cache-dir {0} run --run-dir {0}/run --module ref:ncdma"#,
        dir.path().display()
    );
    assert_told(&in_namespace(&script), 6, &["space", "DMAVET_CACHE"]);
}

/// Guests that go wrong in one way each, in one batch: the arguments, the exit code, a word of the reason.
const GUESTS: &[(&str, u64, &str)] = &[
    ("--module ref:ncdma -- sh -c 'exit 3'", 3, "exit status 3"),
    ("--module ref:ncdma -- sh -c 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger'", 4, "panic"),
    ("--module ref:ncdma -- sh -c 'reboot -f; sleep 60'", 4, "reset"),
    ("--module ref:ncdma -- poweroff -f", 4, "without a verdict"),
    ("--module ref:ncdma --timeout 6 -- sleep 1000", 5, "(--timeout); CPU 0 halted at "),
    ("--module ref:ncdma --silence-timeout 6 -- sleep 1000", 5, "(--silence-timeout); CPU 0 halted at "),
    ("--module ref:ncdma --boot-timeout 1 --append initcall_debug", 5, "--boot-timeout"),
    ("--module ref:ncdma --append panic_on_oops=1 --append init=/nowhere --append rdinit=/nowhere", 4, ""),
    ("--device ncdma -- true", 3, "nothing was checked: no driver"),
    ("-- true", 3, "nothing was checked: the guest was shown no device"),
    ("--module ref:ncdma --device ncdma -- true", 3, "nothing was checked"),
];

#[test]
fn guests_that_go_wrong() {
    let _lab = crate::tool::lab();
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules");
    let refuses = crate::tool::build(&ModuleSource::from_dir("refuses", &source).expect("tests/modules")).ko;
    let mut lines: Vec<String> = GUESTS.iter().map(|(line, _, _)| (*line).to_owned()).collect();
    lines.push(format!("--module {} -- true", refuses.display()));
    let dirs = batch(dir.path(), &lines);

    let refused = ("a module that fails to load", 3, "refuses");
    for ((line, code, word), dir) in GUESTS.iter().copied().chain([refused]).zip(&dirs) {
        let result = findings(dir);
        let verdict = &result["verdict"];
        assert_eq!(verdict["exit_code"], code, "{line}: {verdict}");
        assert!(verdict["reason"].as_str().unwrap().contains(word), "{line}: {verdict}");
    }
}
