use super::*;

/// What this host's KVM can do comes out right. The lab, which can do everything, runs the same in `tests/guest`.
#[test]
fn this_hosts_kvm_conforms() {
    let report = run(Backend::Mprotect, &|_| ()).unwrap_or_else(|error| panic!("this test needs a KVM: {error}"));
    for form in &report.forms {
        println!("{:<50} {:?} | {:?}", form.form, form.auto, form.step);
    }
    for hammer in &report.hammer {
        println!("{hammer:?}");
    }
    println!("{:.2} s, {} right, {} left out, single step: {:?}", report.seconds, report.right(), report.left_out(), report.no_single_step);
    assert_eq!(report.failures(), Vec::<String>::new());
    assert!(report.right() >= 60, "{}", report.right());
}
