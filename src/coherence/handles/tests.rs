use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn small() -> Config {
    let mut config = Config::for_ram(32 << 20);
    config.high_window = 0x10_0000_0000..0x10_0100_0000;
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_never_overlap_and_obey_mask_alignment_and_windows(
        ops in prop::collection::vec((any::<bool>(), 1u64..600, 0usize..3, any::<prop::sample::Index>()), 1..400)
    ) {
        let config = small();
        let mut handles = Handles::new(&config);
        let masks = [0xff_ffff, 0xffff_ffff, u64::MAX];
        let mut live: BTreeMap<u64, Block> = BTreeMap::new();
        for (free, pages, mask, which) in ops {
            if free && !live.is_empty() {
                let base = *live.keys().nth(which.index(live.len())).unwrap();
                handles.free(live.remove(&base).unwrap());
            } else if let Some(block) = handles.alloc(pages, masks[mask], 0, |_| true) {
                let range = block.range();
                prop_assert!(range.end - range.start >= pages * PAGE_U64);
                prop_assert_eq!(range.start % (range.end - range.start), 0, "naturally aligned");
                prop_assert!(range.end - 1 <= masks[mask]);
                prop_assert!(range.start >= 1 << 20);
                for reserved in &config.reserved {
                    prop_assert!(range.end <= reserved.start || range.start >= reserved.end);
                }
                let before = live.range(..range.end).next_back();
                prop_assert!(before.is_none_or(|(_, b)| b.range().end <= range.start), "overlaps");
                live.insert(range.start, block);
            }
        }
    }
}

#[test]
fn a_freed_block_is_not_used_again_at_once() {
    let mut handles = Handles::new(&Config::for_ram(256 << 20));
    let first = handles.alloc(2, u64::MAX, 0, |_| true).unwrap();
    handles.free(first);
    for _ in 0..1000 {
        let next = handles.alloc(2, u64::MAX, 0, |_| true).unwrap();
        assert_ne!(next.base, first.base);
        handles.free(next);
    }
}

#[test]
fn everything_freed_can_be_had_again_as_one() {
    let mut handles = Handles::new(&small());
    let mut blocks = Vec::new();
    while let Some(block) = handles.alloc(2, 0xff_ffff, 0, |_| true) {
        blocks.push(block);
    }
    assert!(blocks.len() > 1500, "15 MiB in blocks of 8 KiB: {}", blocks.len());
    blocks.into_iter().for_each(|b| handles.free(b));
    assert!(handles.alloc(1025, 0xff_ffff, 0, |_| true).is_some(), "8 MiB after all was freed");
}

#[test]
fn wide_masks_get_handles_above_4_gib_and_narrow_ones_below_theirs() {
    let mut handles = Handles::new(&Config::for_ram(256 << 20));
    assert!(handles.alloc(2, u64::MAX, 0, |_| true).unwrap().base >= 1 << 36);
    let low = handles.alloc(2, 0xffff_ffff, 0, |_| true).unwrap().base;
    assert!((256 << 20..3u64 << 30).contains(&low), "{low:#x} is outside RAM");
    assert!(handles.alloc(2, 0xff_ffff, 0, |_| true).unwrap().base < 1 << 24);
    assert_eq!(handles.required_mask(), (1 << 37) - 1);
    assert!(handles.reaches(0xff_ffff) && !handles.reaches(0x7f_ffff));
}

#[test]
fn a_refused_block_is_kept_for_others() {
    let mut handles = Handles::new(&Config::for_ram(256 << 20));
    let mut seen = 0;
    let block = handles.alloc(2, 0xff_ffff, 0, |b| b.base != 0x80_0000).unwrap();
    assert_ne!(block.base, 0x80_0000);
    while let Some(block) = handles.alloc(2, 0xff_ffff, 0, |_| true) {
        seen += u32::from(block.base == 0x80_0000);
    }
    assert_eq!(seen, 1);
}
