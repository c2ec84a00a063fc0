//! What the pictures are drawn from is what happened.

use crate::sample::{self, EVENTS_EACH};
use crate::tool::findings;
use serde_json::Value;

/// The data of a page, as its script gets it.
pub fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("data");
    let (json, _) = rest.split_once("</script>").expect("the end of the data");
    serde_json::from_str(json).expect("JSON")
}

/// An event of a track: what, first and last sequence number, first byte, bytes, place, count.
#[derive(Debug)]
struct Event {
    what: String,
    seq: u64,
    last: u64,
    offset: u64,
    len: u64,
    place: String,
}

fn events(data: &Value, track: &Value) -> Vec<Event> {
    let numbers: Vec<u64> = track["events"].as_array().expect("events").iter().map(|n| n.as_u64().expect("a number")).collect();
    let index = |n: u64| usize::try_from(n).expect("small");
    let event = |e: &[u64]| Event {
        what: data["kinds"][index(e[0])][0].as_str().expect("a kind").to_owned(),
        seq: e[1],
        last: e[2],
        offset: e[3],
        len: e[4],
        place: data["timeline"]["places"][index(e[5])]["short"].as_str().expect("a place").to_owned(),
    };
    numbers.chunks(7).map(event).collect()
}

fn tracks<'a>(data: &'a Value, family: &str) -> Vec<&'a Value> {
    data["timeline"]["tracks"].as_array().expect("tracks").iter().filter(|track| track["family"] == family).collect()
}

/// The finding's track.
fn track_of(data: &Value, finding: usize) -> &Value {
    let its = |track: &&Value| track["marks"].as_array().expect("marks").iter().any(|mark| mark["finding"] == finding);
    data["timeline"]["tracks"].as_array().expect("tracks").iter().find(its).expect("a track of the finding")
}

#[test]
fn the_trace_and_the_histories_tell_the_same() {
    let run = sample::small();
    let found = findings(run.path());
    let data = data(&run.report("html"));
    assert_eq!(data["timeline"]["whole"], true);
    let findings = found["findings"].as_array().expect("findings");
    let codes: Vec<&str> = findings.iter().map(|f| f["code"].as_str().expect("a code")).collect();
    for code in ["DV202", "DV208", "DV217"] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    let mut compared = 0;
    for (index, finding) in findings.iter().enumerate() {
        let track = track_of(&data, index);
        let drawn = events(&data, track);
        for event in finding["volatile"]["history"].as_array().into_iter().flatten() {
            let (seq, what) = (event["seq"].as_u64().expect("a number"), event["event"].as_str().expect("an event"));
            let same = drawn.iter().find(|d| d.what == what && d.seq <= seq && seq <= d.last);
            let same = same.unwrap_or_else(|| panic!("#{seq} {what} of {} is not among {drawn:#?}", finding["code"]));
            let offset = event["range"]["offset"].as_u64().expect("a number");
            assert!(same.offset <= offset && offset < same.offset + same.len, "{event} and {same:?}");
            assert_eq!(same.place, event["place"].as_str().expect("a place"), "{event} and {same:?}");
            compared += 1;
        }
    }
    assert!(compared >= 15, "{compared}");

    let bare = tempfile::tempdir().expect("temporary directory");
    std::fs::copy(run.path().join("findings.json"), bare.path().join("findings.json")).expect("copy");
    let data = self::data(&sample::report(bare.path(), "html"));
    let note = data["timeline"]["notes"][0].as_str().expect("a note");
    assert!(data["timeline"]["whole"] == false && note.contains("no trace") && note.contains("histories"), "{note}");
    for (index, finding) in findings.iter().enumerate() {
        let history = finding["volatile"]["history"].as_array().map_or(0, Vec::len);
        assert!(events(&data, track_of(&data, index)).len() >= history);
    }
    std::fs::write(bare.path().join("trace"), "nothing of the kind").expect("write");
    let data = self::data(&sample::report(bare.path(), "html"));
    let note = data["timeline"]["notes"][0].as_str().expect("a note");
    assert!(note.contains("this is not a trace of dmavet"), "{note}");
}

#[test]
fn ownership_is_drawn_as_it_changed() {
    let run = sample::small();
    let data = data(&run.report("html"));
    let spans = |track: &Value| -> Vec<u64> {
        let numbers: Vec<u64> = track["spans"].as_array().expect("spans").iter().map(|n| n.as_u64().expect("a number")).collect();
        for pair in numbers.chunks(3).collect::<Vec<_>>().windows(2) {
            assert!(pair[0][1] == pair[1][0] && pair[0][0] < pair[0][1], "{numbers:?}");
        }
        numbers.chunks(3).map(|span| span[2]).collect()
    };
    let single = tracks(&data, "single");
    assert_eq!(single.iter().map(|track| spans(track)).collect::<Vec<_>>(), [vec![4096, 0], vec![4096, 4032, 4096, 4032, 4096]]);
    let list = tracks(&data, "sg");
    assert_eq!(spans(list[0]), [3072, 0]);
    assert_eq!(list[0]["size"], 3072);
    let second = events(&data, list[0]).into_iter().find(|event| event.what == "device wrote").expect("a write");
    assert_eq!((second.offset, second.len), (1024, 1024), "the second entry of the list");
    assert_eq!(spans(tracks(&data, "coherent")[0]), [0u64; 0]);
    let refused = events(&data, single[1]).pop().expect("events");
    assert_eq!((refused.what.as_str(), refused.offset), ("device write refused", 0));
    assert!(single[1]["end"].as_u64().expect("an end") < refused.seq);
    let places: Vec<String> = events(&data, single[1]).into_iter().map(|event| event.place).collect();
    assert!(places.iter().any(|place| place.starts_with("drv_rx_poll (driver.c:")), "{places:?}");
    let own: Vec<String> = events(&data, tracks(&data, "device")[0]).into_iter().map(|event| event.what).collect();
    for what in ["driver bound", "register written", "interrupt raised, or register read", "driver unbound"] {
        assert!(own.iter().any(|known| known == what), "{own:?}");
    }
}

#[test]
fn what_is_in_the_data_stays_there() {
    let run = sample::small();
    let page = run.report("html");
    assert_eq!(page.matches("</script>").count(), 2, "the data and the script end once each");
    assert!(!page.contains("<script>alert"), "the title is text");
    assert_eq!(page.matches("{{").count(), 0, "every part of the template is filled");
    for outside in ["http://", "https://", "@import", "url("] {
        assert!(!page.split("id=\"data\"").next().expect("the head").contains(outside), "{outside}");
    }
    let data = data(&page);
    let sources = data["sources"].as_object().expect("sources");
    let quoted: Vec<&str> =
        sources.values().flat_map(|excerpt| excerpt["lines"].as_array().expect("lines")).filter_map(Value::as_str).collect();
    assert!(quoted.iter().any(|line| line.contains("</script><b>no markup</b>")), "{quoted:?}");
    assert!(data["rules"]["DV202"]["fix"].as_str().is_some_and(|fix| fix.contains("dma_sync")));
}

#[test]
fn a_large_run_is_whole() {
    let mappings = 2000;
    let run = sample::large(mappings);
    let data = data(&run.report("html"));
    let single = tracks(&data, "single");
    assert_eq!(single.len() as u64, mappings);
    assert!(single.iter().all(|track| events(&data, track).len() as u64 >= EVENTS_EACH - 1));
    assert_eq!(single.iter().filter(|track| !track["marks"].as_array().expect("marks").is_empty()).count(), 1);
}

#[test]
fn what_is_too_much_is_left_out_but_never_what_a_finding_is_about() {
    let run = sample::large(40_000);
    let data = data(&run.report("html"));
    let single = tracks(&data, "single");
    let drawn: usize = single.iter().map(|track| events(&data, track).len()).sum();
    assert!((200_000..=250_000).contains(&drawn), "{drawn}");
    assert!(single[0]["marks"].as_array().is_some_and(|marks| !marks.is_empty()), "the oldest that is there is the one with the offence");
    assert_eq!(single.last().expect("tracks")["events"].as_array().map(Vec::len), Some(49), "the newest one is whole");
    let notes = data["timeline"]["notes"].to_string();
    assert!(notes.contains(&format!("{} of the oldest mappings", 40_000 - single.len())), "{notes}");
}

#[test]
fn a_trace_that_is_cut_or_damaged_is_used_as_far_as_it_goes_or_not_at_all() {
    let run = sample::large(2000);
    let trace = run.path().join("trace");
    let whole = std::fs::read(&trace).expect("trace");
    let drawn = |bytes: &[u8]| {
        std::fs::write(&trace, bytes).expect("write");
        let data = data(&run.report("html"));
        (tracks(&data, "single").len(), data["timeline"]["whole"] == true, data["timeline"]["notes"].to_string())
    };
    let (mappings, all, notes) = drawn(&whole[..whole.len() - 10]);
    assert!(mappings > 10 && all && notes.contains("has no end"), "{mappings}, {notes}");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let (mappings, all, notes) = drawn(&damaged);
    assert!(mappings == 1 && !all && notes.contains("damaged at offset"), "{mappings}, {notes}");
    let (mappings, all, notes) = drawn(&[]);
    assert!(mappings == 1 && !all && notes.contains("of no use"), "{mappings}, {notes}");
}
