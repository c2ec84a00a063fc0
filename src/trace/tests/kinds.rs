//! Every kind of record comes back as it was written.

use super::{owned, recorder};
use crate::{End, Patch, Reader, Record};
use dmavet_coherence::*;
use proptest::prelude::*;
use std::borrow::Cow;

fn requester() -> impl Strategy<Value = Requester> {
    prop_oneof![any::<u16>().prop_map(|n| Requester::Pci(Bdf(n))), any::<u16>().prop_map(Requester::Platform)]
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..300, Just(0xffff_ffff), Just(u64::MAX)]
}

fn ranges() -> impl Strategy<Value = Vec<(Iova, u64)>> {
    prop::collection::vec((word().prop_map(Iova), word()), 0..5)
}

fn direction() -> impl Strategy<Value = Direction> {
    (0u8..4).prop_map(|n| Direction::from_wire(n).unwrap())
}

fn family() -> impl Strategy<Value = Family> {
    (1u8..6).prop_map(|n| Family::from_wire(n).unwrap())
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (word(), "[a-z_+0-9é ]{0,20}", any::<bool>(), any::<bool>());
    prop::collection::vec(frame.prop_map(|(address, symbol, reliable, exact)| Frame { address, symbol, reliable, exact }), 0..5)
}

fn map() -> impl Strategy<Value = MapCall> {
    let extents = prop::collection::vec((word(), word()).prop_map(|(gpa, len)| Extent { gpa: Gpa(gpa), len }), 0..5);
    let limits = (word(), word(), any::<u32>(), any::<u32>()).prop_map(|(mask, seg_boundary, max_seg_size, min_align_mask)| Limits {
        mask,
        seg_boundary,
        max_seg_size,
        min_align_mask,
    });
    (family(), extents, direction(), word(), limits, 0u8..4, any::<(u32, u32)>(), word()).prop_map(
        |(family, extents, direction, attrs, limits, kind, object, cpu_addr)| MapCall {
            family,
            extents,
            direction,
            attrs: Attrs::from_bits_retain(attrs),
            limits,
            kind: PageKind::from_wire(kind),
            object,
            cpu_addr,
        },
    )
}

fn call() -> impl Strategy<Value = ApiCall> {
    let unmap = (family(), ranges(), direction(), word(), word()).prop_map(|(family, ranges, direction, attrs, cpu_addr)| {
        ApiCall::Unmap(UnmapCall { family, ranges, direction, attrs: Attrs::from_bits_retain(attrs), cpu_addr })
    });
    let sync = (any::<bool>(), any::<bool>(), ranges(), direction())
        .prop_map(|(for_cpu, sg, ranges, direction)| ApiCall::Sync(SyncCall { for_cpu, sg, ranges, direction }));
    prop_oneof![
        map().prop_map(ApiCall::Map),
        unmap,
        sync,
        word().prop_map(|mask| ApiCall::SetMask { mask }),
        ".{0,20}".prop_map(|driver| ApiCall::Bound { driver }),
        Just(ApiCall::Unbound),
        map().prop_map(ApiCall::Fail),
        any::<u32>().prop_map(|bits| ApiCall::Rejected(Rejected::Flags(AllocFlags::from_bits_retain(bits)))),
        Just(ApiCall::Rejected(Rejected::Vmalloc)),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(Answer::Done), Just(Answer::Failed), any::<bool>().prop_map(Answer::Supported), ranges().prop_map(Answer::Handles)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![Just(Outcome::Done), Just(Outcome::Refused), Just(Outcome::Broken)]
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    ".{0,30}".prop_map(Cow::Owned)
}

fn accesses() -> impl Strategy<Value = Cow<'static, [CpuAccess]>> {
    let one = (word(), any::<u32>(), any::<bool>(), any::<bool>());
    let one = one.prop_map(|(gpa, len, read, write)| CpuAccess { gpa: Gpa(gpa), len, read, write });
    prop::collection::vec(one, 0..4).prop_map(Cow::Owned)
}

fn input() -> impl Strategy<Value = Input<'static>> {
    let caller = (requester(), any::<u32>(), any::<u32>());
    let intent = prop_oneof![Just(Intent::Use), Just(Intent::Poll), Just(Intent::Prefetch)];
    let access = (requester(), word(), word(), any::<bool>(), any::<bool>(), intent, outcome());
    prop_oneof![
        1 => (requester(), text()).prop_map(|(requester, model)| Input::AddDevice { requester, model }),
        4 => (caller, call(), answer()).prop_map(|((requester, site, cpu), call, answer)| Input::Call {
            caller: Caller { requester, site: SiteId(site), cpu },
            call: Cow::Owned(call),
            answer: Cow::Owned(answer),
        }),
        1 => (requester(), any::<bool>()).prop_map(|(requester, on)| Input::BusMaster { requester, on }),
        1 => (requester(), any::<u32>()).prop_map(|(requester, site)| Input::Kick { requester, site: SiteId(site) }),
        1 => requester().prop_map(|requester| Input::Reset { requester }),
        1 => text().prop_map(|what| Input::BlindSpot { what }),
        1 => Just(Input::Gate),
        1 => requester().prop_map(|requester| Input::Signalled { requester }),
        1 => (accesses(), any::<u32>(), any::<bool>(), word(), any::<bool>())
            .prop_map(|(accesses, cpu, user, rip, innocent)| Input::CpuAccess { accesses, cpu, user, rip, innocent }),
        1 => (word(), text()).prop_map(|(page, why)| Input::AbandonPage { page: Gpa(page), why }),
        1 => (frames(), any::<u32>()).prop_map(|(stack, site)| Input::Site { stack: Cow::Owned(stack), site: SiteId(site) }),
        1 => requester().prop_map(|requester| Input::View { requester }),
        2 => access.prop_map(|(requester, iova, len, read, write, intent, outcome)| Input::Access {
            requester,
            iova: Iova(iova),
            len,
            read,
            write,
            intent,
            outcome,
        }),
        1 => (requester(), word(), word(), outcome())
            .prop_map(|(requester, iova, len, outcome)| Input::Consume { requester, iova: Iova(iova), len, outcome }),
        1 => (requester(), word(), word(), word())
            .prop_map(|(requester, iova, len, number)| Input::Begin { requester, iova: Iova(iova), len, number }),
        1 => word().prop_map(|number| Input::EndFlight { number }),
        1 => Just(Input::Stats),
        1 => Just(Input::Finish),
    ]
}

fn bytes(most: usize) -> impl Strategy<Value = Cow<'static, [u8]>> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Cow::Owned)
}

/// All records but the end.
pub(super) fn record() -> impl Strategy<Value = Record<'static>> {
    let runs = prop::collection::vec((0u16..4000, bytes(96)), 0..4);
    prop_oneof![
        1 => (word(), word(), runs).prop_map(|(page, after, runs)| Record::Patch(Patch { page, after, runs })),
        1 => word().prop_map(Record::Time),
        1 => (word(), bytes(100)).prop_map(|(offset, bytes)| Record::Stored(offset, bytes)),
        1 => (word(), prop::collection::vec(word().prop_map(Gpa), 0..5)).prop_map(|(after, pages)| Record::Refused(after, pages)),
        1 => frames().prop_map(Record::Stack),
        1 => any::<bool>().prop_map(Record::InDriver),
        1 => prop::option::of(text()).prop_map(Record::Allocator),
        1 => Just(Record::Injected),
        1 => Just(Record::Forget),
        1 => (text(), bytes(50)).prop_map(|(name, value)| Record::Note(name, value)),
        12 => input().prop_map(Record::Input),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_come_back(record in record()) {
        prop_assert_eq!(owned(&record), record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inputs_and_notes_come_back_through_a_file(records in prop::collection::vec(record(), 0..300)) {
        let kept: Vec<_> = records.into_iter().filter(|r| matches!(r, Record::Input(_) | Record::Note(..))).collect();
        let (recorder, memory) = recorder(usize::MAX);
        for record in &kept {
            match record {
                Record::Input(input) => recorder.input(input),
                Record::Note(name, value) => recorder.note(name, value),
                _ => {}
            }
        }
        let figures = recorder.finish().unwrap();
        let bytes = memory.bytes();
        prop_assert_eq!(figures.written, bytes.len() as u64);
        let mut reader = Reader::new(&bytes[..]).unwrap();
        for record in &kept {
            let read = reader.next().unwrap();
            prop_assert_eq!(read.as_ref(), Some(record));
        }
        prop_assert_eq!(reader.next().unwrap(), None);
        prop_assert_eq!(reader.end(), Some(End::Whole));
        prop_assert_eq!(reader.inputs(), figures.inputs);
    }
}
