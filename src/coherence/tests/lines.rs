//! 3xx.

use super::fixture::*;
use crate::*;

fn page(gpa: u64, len: u64, direction: Direction) -> MapCall {
    MapCall { kind: PageKind::Other, ..single(gpa, len, direction) }
}

#[test]
fn dv301_is_a_note_for_a_page_the_driver_laid_out() {
    let w = World::new();
    w.map_call(page(BUF + 64, 128, FromDevice));
    w.map_call(page(BUF + PAGE + 2, 60, ToDevice));
    w.map(BUF + 2 * PAGE + 2, 60, FromDevice);
    assert_eq!(w.codes(), [""; 0], "aligned, not written by the device, slab");
    w.map_call(page(BUF + 3 * PAGE + 20, 100, FromDevice));
    assert!(w.finding(Code::DV301).message.contains("begins 20 and ends 56 bytes"));
    assert_eq!(w.codes(), ["DV301n"]);
}

#[test]
fn dv302_only_in_a_line_of_the_drivers_own_page() {
    let w = World::new();
    w.map_call(page(BUF, 64, FromDevice));
    w.map_call(page(BUF + 64, 64, FromDevice));
    w.silent();
    w.map_call(page(BUF + 4 * PAGE + 32, 32, Bidirectional));
    w.map_call(page(BUF + 4 * PAGE, 32, FromDevice));
    assert_eq!(w.bad(), ["DV302w"], "in front of the other");
    let w = World::new();
    let low = w.map_call(page(BUF + PAGE, 32, FromDevice))[0].0;
    w.map_call(page(BUF + PAGE + 32, 32, Bidirectional));
    assert_eq!(w.bad(), ["DV302w"]);

    let w = World::new();
    w.map(BUF, 32, FromDevice);
    w.map(BUF + 32, 32, FromDevice);
    w.map_call(page(BUF + PAGE, 32, ToDevice));
    let gone = w.map_call(page(BUF + PAGE + 32, 32, FromDevice))[0].0;
    w.unmap(gone, 32, FromDevice);
    w.map_call(page(BUF + PAGE + 40, 16, FromDevice));
    w.silent();
    assert_ne!(low, gone);
}

#[test]
fn dv302_looks_at_both_ends() {
    let w = World::new();
    w.map_call(page(BUF + 4096 + 40, 24, FromDevice));
    w.map_call(page(BUF, 4096 + 30, FromDevice));
    assert_eq!(w.bad(), ["DV302w"]);
    let w = World::new();
    w.map_call(page(BUF, 30, FromDevice));
    w.map_call(page(BUF + 40, 4096, FromDevice));
    assert_eq!(w.bad(), ["DV302w"]);
}
