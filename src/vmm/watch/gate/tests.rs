//! Guards of pages, with a mapping that only remembers.

use super::*;
use std::sync::mpsc;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

#[derive(Debug, Default)]
struct Log {
    calls: Vec<(Range<u32>, Guard)>,
    full: bool,
}

/// A mapping that remembers; `full` refuses to guard anything more.
#[derive(Clone, Debug, Default)]
struct Memo(Arc<StdMutex<Log>>);

impl Protect for Memo {
    fn protect(&self, pages: Range<u32>, guard: Guard) -> std::io::Result<()> {
        let mut log = self.0.lock().unwrap();
        if log.full && guard != Guard::Open {
            return Err(std::io::Error::from_raw_os_error(libc::ENOMEM));
        }
        log.calls.push((pages, guard));
        Ok(())
    }
}

impl Memo {
    fn take(&self) -> Vec<(Range<u32>, Guard)> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}

fn gate() -> (Arc<PageGate>, Memo) {
    let memo = Memo::default();
    (Arc::new(PageGate::new(Frames::new(&[(0, 64 << 12)]), Box::new(memo.clone()))), memo)
}

fn gpa(page: u64) -> Gpa {
    Gpa(page << 12)
}

#[test]
fn adjacent_pages_take_one_call_and_nothing_is_done_twice() {
    let (gate, memo) = gate();
    let mut refused = Vec::new();
    let closed = |page| (gpa(page), Guard::Closed);
    gate.apply(&[closed(4), closed(3), closed(5), (gpa(6), Guard::ReadOnly), closed(9)], &mut refused);
    assert_eq!(memo.take(), [(3..6, Guard::Closed), (6..7, Guard::ReadOnly), (9..10, Guard::Closed)]);
    gate.apply(&[closed(3)], &mut refused);
    assert!(memo.take().is_empty());
    assert!(refused.is_empty());
    let stats = gate.stats();
    assert_eq!((stats.flips, stats.flip_calls, stats.guarded), (5, 3, 5));
}

#[test]
fn a_page_gets_the_stricter_of_two_guards() {
    let (gate, memo) = gate();
    gate.apply(&[(gpa(1), Guard::ReadOnly)], &mut Vec::new());
    gate.want(Party::Stress, &[(Page(1), Guard::Closed)], |_| {});
    gate.apply(&[(gpa(1), Guard::Open)], &mut Vec::new());
    assert_eq!(gate.applied(Page(1)), Guard::Closed);
    gate.want(Party::Stress, &[(Page(1), Guard::Open)], |_| {});
    assert_eq!(memo.take(), [(1..2, Guard::ReadOnly), (1..2, Guard::Closed), (1..2, Guard::Open)]);
}

#[test]
fn a_full_mapping_refuses_and_is_counted() {
    let (gate, memo) = gate();
    memo.0.lock().unwrap().full = true;
    let mut refused = Vec::new();
    gate.apply(&[(gpa(1), Guard::Closed), (gpa(2), Guard::Closed), (gpa(99), Guard::Closed)], &mut refused);
    refused.sort_unstable();
    assert_eq!(refused, [gpa(1), gpa(2), gpa(99)]);
    assert_eq!(gate.applied(Page(1)), Guard::Open);
    assert_eq!(gate.stats().refused, 2);
}

#[test]
fn pages_that_are_never_guarded_are_refused_and_opened() {
    let (gate, _) = gate();
    gate.apply(&[(gpa(1), Guard::Closed)], &mut Vec::new());
    gate.never(&[Page(1)]);
    assert_eq!(gate.applied(Page(1)), Guard::Open);
    let mut refused = Vec::new();
    gate.apply(&[(gpa(1), Guard::Closed)], &mut refused);
    assert_eq!(refused, [gpa(1)]);
}

#[test]
fn after_a_step_a_page_gets_the_guard_of_then() {
    let (gate, _) = gate();
    gate.apply(&[(gpa(1), Guard::Closed), (gpa(2), Guard::Closed)], &mut Vec::new());
    let step = gate.begin_step(&[Page(1), Page(2)]);
    assert_eq!(gate.applied(Page(1)), Guard::Closed, "marked, not open yet");
    step.open();
    assert_eq!(gate.applied(Page(1)), Guard::Open);
    // Giving back does not wait; the thread that steps may change its mind too.
    gate.apply(&[(gpa(1), Guard::Open), (gpa(2), Guard::ReadOnly)], &mut Vec::new());
    drop(step);
    assert_eq!((gate.applied(Page(1)), gate.applied(Page(2))), (Guard::Open, Guard::ReadOnly));
}

#[test]
fn a_hand_over_waits_for_a_step_of_another_thread() {
    let (gate, _) = gate();
    let step = gate.begin_step(&[Page(1)]);
    step.open();
    let (done, is_done) = mpsc::channel();
    let other = gate.clone();
    let thread = thread::spawn(move || {
        other.apply(&[(gpa(1), Guard::Closed)], &mut Vec::new());
        done.send(()).unwrap();
    });
    assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err(), "the page is open: the hand-over has to wait");
    assert_eq!(gate.applied(Page(1)), Guard::Open);
    drop(step);
    is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(gate.applied(Page(1)), Guard::Closed);
    thread.join().unwrap();
}

#[test]
fn a_hand_over_ends_a_loan() {
    let (gate, _) = gate();
    let soon = Instant::now() + Duration::from_millis(2);
    gate.apply(&[(gpa(1), Guard::Closed), (gpa(2), Guard::Closed), (gpa(3), Guard::Closed)], &mut Vec::new());
    gate.lend(&[Page(1), Page(2)], 0, soon);
    gate.lend(&[Page(3)], 1, soon);
    assert_eq!(gate.guarded((1..4).map(Page)), []);
    gate.apply(&[(gpa(1), Guard::Closed)], &mut Vec::new());
    assert_eq!(gate.guarded((1..4).map(Page)), [Page(1)]);
    gate.take_back(0);
    assert_eq!(gate.guarded((1..4).map(Page)), [Page(1), Page(2)]);
    assert_eq!(gate.take_back_due(soon - Duration::from_millis(1)), Some(soon));
    assert_eq!(gate.take_back_due(soon), None);
    assert_eq!(gate.guarded((1..4).map(Page)), [Page(1), Page(2), Page(3)]);
}
