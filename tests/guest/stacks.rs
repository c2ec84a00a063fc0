//! Call stacks of stopped CPUs on real kernels.

use crate::tool::{alarms, batch, findings, lab};
use serde_json::Value;

/// The physical frames of a site, innermost first, as `function+offset/size [module]`.
fn frames(site: &Value) -> Vec<String> {
    let text = |frame: &Value, name: &str| frame[name].as_str().unwrap_or_default().to_owned();
    let physical = site["frames"].as_array().expect("frames").iter().filter(|f| f["inlined"] == false);
    physical.map(|f| format!("{}{} [{}]", text(f, "function"), text(f, "offset"), text(f, "module"))).collect()
}

/// The write that is the offence is found by the host: in the guest's memory, by the kernel's tables. The unmap it is lost at is a call
/// the guest told the stack of. Both were made by the same function, so their callers must be the same, name for name.
#[test]
fn a_stack_the_host_walked_is_the_one_the_guest_tells() {
    let _lab = lab();
    let dir = tempfile::tempdir().expect("temporary directory");
    let lines = ["debian:6.1", "debian:6.12", "debian:7.2"].map(|kernel| format!("--kernel {kernel} --module ref:ncdma/write-in-flight"));
    for (line, dir) in lines.iter().zip(batch(dir.path(), &lines)) {
        let result = findings(&dir);
        let finding = alarms(&result).into_iter().find(|f| f["code"] == "DV203").unwrap_or_else(|| panic!("{line}: no DV203"));
        let (walked, told) = (frames(&finding["offence"]), frames(&finding["consequence"]));
        let callers = |frames: &[String]| -> Vec<String> {
            let own = frames.iter().position(|f| f.ends_with("[ncdma]")).unwrap_or_else(|| panic!("{line}: {frames:?}"));
            frames.iter().skip(own + 1).cloned().collect()
        };
        assert_eq!(callers(&walked), callers(&told), "{line}");
        assert!(callers(&told).len() >= 5, "{line}: {told:?}");
        assert!(walked.last().is_some_and(|f| f.starts_with("entry_SYSCALL_64_after_hwframe+")), "{line}: {walked:?}");
        let counters = &result["volatile"]["counters"];
        assert!(counters["stacks_walked"].as_u64() > Some(0) && counters["stack_guesses"] == 0, "{line}: {counters}");
    }
}
