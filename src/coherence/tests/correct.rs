//! Correct drivers are silent, and get their data, on every machine, with every edge and whatever the cache does.

use super::fixture::*;
use super::idioms;
use crate::*;
use proptest::prelude::*;

/// Every combination that means something, a few seeds for the one that draws.
pub(super) fn machines() -> impl Iterator<Item = (Profile, Edges, Cache, u64)> {
    let all = Profile::ALL.into_iter().flat_map(|profile| Edges::ALL.into_iter().map(move |edges| (profile, edges)));
    let all = all.flat_map(|(profile, edges)| Cache::ALL.into_iter().map(move |cache| (profile, edges, cache)));
    let plain = |edges, cache| edges == Edges::Isolate && cache == Cache::Quiet;
    all.filter(move |(profile, edges, cache)| !profile.bounces() || plain(*edges, *cache))
        .flat_map(|(profile, edges, cache)| (0..if cache == Cache::Random { 3 } else { 1 }).map(move |seed| (profile, edges, cache, seed)))
}

/// Plays a history on every machine.
pub(super) fn everywhere(history: impl Fn(Edges)) {
    for (profile, edges, cache, seed) in machines() {
        play_on(profile, edges, cache, seed);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(edges)));
        if let Err(panic) = played {
            let why = panic.downcast_ref::<String>().cloned();
            panic!("{profile}, --edges {edges}, --cache {cache} --seed {seed}: {}", why.unwrap_or_else(|| format!("{panic:?}")));
        }
    }
}

#[test]
fn what_correct_drivers_do() {
    everywhere(|edges| {
        idioms::for_cpu_before_rewriting_a_to_device_descriptor();
        idioms::a_write_to_a_to_device_mapping_before_for_device();
        idioms::a_buffer_dropped_without_a_look();
        idioms::retransmit_maps_a_clone_while_the_first_is_still_mapped();
        idioms::reading_back_what_the_device_itself_wrote();
        if edges == Edges::Isolate {
            // With real lines these cut them: DV304.
            idioms::peeking_at_a_descriptor_the_device_still_works_on();
            idioms::syncs_of_a_part_at_an_offset();
            idioms::the_receive_loop_of_a_page_pool_driver();
        }
    });
}

#[test]
fn receive_buffers_that_the_stack_writes_into_and_that_are_posted_again() {
    everywhere(|_| {
        let w = World::new();
        w.cpu_write(BUF, &[0x11; 4096]);
        let dma = w.map(BUF, 2048, FromDevice);
        for n in 1..5u8 {
            w.kick();
            // In pieces, as a device does.
            for at in (0..256).step_by(32) {
                w.write(Iova(dma.0 + at), &[n; 32]);
            }
            w.for_cpu(dma, 256, FromDevice);
            assert_eq!(w.cpu_read(BUF, 256), [n; 256]);
            w.cpu_write(BUF + 16, &[0xee; 20]);
            w.for_device(dma, 2048, FromDevice);
        }
        w.write(dma, &[9; 256]);
        w.unmap(dma, 2048, FromDevice);
        assert_eq!(w.cpu_read(BUF, 256), [9; 256]);
        w.silent();
    });
}

#[test]
fn a_command_ring_both_sides_write() {
    everywhere(|_| {
        let w = World::new();
        let dma = w.map(BUF, PAGE, Bidirectional);
        for n in 0..12u8 {
            let at = u64::from(n) % 4 * 128;
            w.for_cpu(Iova(dma.0 + at), 128, Bidirectional);
            w.cpu_write(BUF + at, &[n | 0x80; 64]);
            w.for_device(Iova(dma.0 + at), 128, Bidirectional);
            w.kick();
            assert_eq!(w.read(Iova(dma.0 + at), 64), [n | 0x80; 64]);
            w.write(Iova(dma.0 + at + 64), &[n; 32]);
            w.write(Iova(dma.0 + at), &[n]);
            w.for_cpu(Iova(dma.0 + at), 128, Bidirectional);
            assert_eq!((w.cpu_read(BUF + at, 2), w.cpu_read(BUF + at + 64, 32)), (vec![n, n | 0x80], vec![n; 32]));
            w.for_device(Iova(dma.0 + at), 128, Bidirectional);
        }
        w.unmap(dma, PAGE, Bidirectional);
        w.silent();
    });
}

#[test]
fn memory_of_the_noncoherent_allocator() {
    everywhere(|_| {
        let w = World::new();
        w.cpu_write(BUF, &[0; 4096]);
        let dma = w.alloc_pages(BUF, PAGE, Bidirectional);
        w.cpu_write(BUF, &[5; 256]);
        w.for_device(dma, PAGE, Bidirectional);
        assert_eq!(w.read(dma, 256), [5; 256]);
        for n in 1..4 {
            w.write(Iova(dma.0 + 1024), &[n; 300]);
            w.for_cpu(dma, PAGE, Bidirectional);
            assert_eq!((w.cpu_read(BUF, 256), w.cpu_read(BUF + 1024, 300)), (vec![5; 256], vec![n; 300]));
            w.for_device(dma, PAGE, Bidirectional);
        }
        w.free_pages(dma, BUF, PAGE, Bidirectional);
        w.silent();
    });
}

#[test]
fn pages_mapped_without_a_sync_and_given_before_each_use() {
    everywhere(|_| {
        let w = World::new();
        w.cpu_write(BUF, &[0x77; 4096]);
        let dma = w.map_skip(BUF, PAGE, FromDevice);
        for n in 0..4 {
            w.for_device(dma, PAGE, FromDevice);
            w.write(Iova(dma.0 + 64), &[n; 128]);
            w.for_cpu(Iova(dma.0 + 64), 128, FromDevice);
            assert_eq!(w.cpu_read(BUF + 64, 128), [n; 128]);
            // The stack pulls the header and gives the page back.
            w.cpu_write(BUF + 64, &[0xaa; 14]);
        }
        w.unmap_skip(dma, PAGE, FromDevice);
        w.silent();
    });
}

#[test]
fn a_page_received_on_one_device_and_sent_on_another() {
    everywhere(|_| {
        let w = World::new();
        w.core.set_bus_master(OTHER, true);
        let dma = w.map(BUF, PAGE, FromDevice);
        for n in 1..4 {
            w.write(dma, &[n; 192]);
            w.for_cpu(dma, 192, FromDevice);
            w.cpu_write(BUF, &[n | 0x40; 64]);
            let Answer::Handles(out) = w.call_as(OTHER, &ApiCall::Map(single(BUF, 192, ToDevice))) else { panic!("no handle") };
            let mut sent = [0; 192];
            vm_memory::Bytes::read_slice(&w.core.view(OTHER), &mut sent, vm_memory::GuestAddress(out[0].0.0)).unwrap();
            assert_eq!((&sent[..64], &sent[64..]), (&[n | 0x40; 64][..], &[n; 128][..]));
            assert_eq!(w.call_as(OTHER, &ApiCall::Unmap(unmap(Family::Single, out[0].0, 192, ToDevice))), Answer::Done);
            w.for_device(dma, PAGE, FromDevice);
        }
        w.unmap(dma, PAGE, FromDevice);
        w.silent();
    });
}

#[test]
fn mapped_for_each_transfer() {
    everywhere(|_| {
        let w = World::new();
        for n in 0..6u8 {
            w.cpu_write(BUF + 128, &[n; 512]);
            let direction = [ToDevice, FromDevice, Bidirectional][usize::from(n) % 3];
            let dma = w.map(BUF + 128, 512, direction);
            if direction != FromDevice {
                assert_eq!(w.read(dma, 512), [n; 512]);
            }
            if direction != ToDevice {
                w.write(dma, &[n ^ 0xff; 512]);
            }
            w.unmap(dma, 512, direction);
            let expected = if direction == ToDevice { n } else { n ^ 0xff };
            assert_eq!(w.cpu_read(BUF + 128, 512), [expected; 512]);
        }
        w.silent();
    });
}

#[test]
fn combinations_that_mean_nothing_are_refused() {
    let mut config = Config::for_ram(RAM);
    config.profile = Profile::Swiotlb;
    assert!(config.validate().is_ok());
    config.edges = Edges::Line;
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "--edges line means nothing with --profile swiotlb: that machine has bounce buffers instead of cache lines"
    );
    (config.edges, config.cache) = (Edges::Isolate, Cache::Evict);
    assert!(config.validate().unwrap_err().to_string().starts_with("--cache evict means nothing"));
}

/// One round of a correct driver on a mapped buffer.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The bytes it is about, as parts of the buffer in thousandths.
    part: (usize, usize),
    cpu_writes: bool,
    device_writes: bool,
    value: u8,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (0usize..1000, 1usize..1000, any::<bool>(), any::<bool>(), any::<u8>());
    let round = round.prop_map(|(start, len, cpu_writes, device_writes, value)| Round {
        part: (start, (start + len).min(1000)),
        cpu_writes,
        device_writes,
        value,
    });
    prop::collection::vec(round, 1..12)
}

proptest! {
    #![proptest_config(property(super::CASES / 8))]

    #[test]
    fn a_correct_driver_gets_its_data_on_every_machine(
        start in 0usize..300, len in 64usize..700, receive in any::<bool>(), rounds in rounds(),
    ) {
        everywhere(|edges| {
            // With real lines a correct driver has its buffers on lines.
            let (start, len) = if edges == Edges::Line { (start / 64 * 64, len / 64 * 64) } else { (start, len) };
            let direction = if receive { FromDevice } else { Bidirectional };
            let w = World::new();
            let gpa = BUF + start as u64;
            w.cpu_write(BUF, &[0x5a; 4096]);
            let dma = w.map(gpa, len as u64, direction);
            let mut expected = vec![0x5a; len];
            for round in &rounds {
                let mut part = (round.part.0 * len / 1000, (round.part.1 * len / 1000).max(round.part.0 * len / 1000 + 1).min(len));
                if edges == Edges::Line {
                    part = (part.0 / 64 * 64, part.1.next_multiple_of(64));
                }
                let (at, bytes) = (Iova(dma.0 + part.0 as u64), part.1 - part.0);
                if round.device_writes {
                    w.write(at, &vec![round.value; bytes]);
                    expected[part.0..part.1].fill(round.value);
                }
                w.for_cpu(at, bytes as u64, direction);
                let seen = w.cpu_read(gpa + part.0 as u64, bytes);
                // What neither side wrote, and what the CPU wrote into a receive buffer, need not come back.
                if round.device_writes || !receive {
                    assert!(seen == expected[part.0..part.1], "{round:?}: {seen:02x?}");
                }
                if round.cpu_writes {
                    w.cpu_write(gpa + part.0 as u64, &vec![!round.value; bytes]);
                    expected[part.0..part.1].fill(!round.value);
                }
                w.for_device(at, bytes as u64, direction);
                if !receive {
                    assert!(w.read(at, bytes) == expected[part.0..part.1], "{round:?}");
                }
            }
            w.unmap(dma, len as u64, direction);
            assert!(receive || w.cpu_read(gpa, len) == expected);
            let page = w.cpu_read(BUF, 4096);
            assert!(page[..start].iter().chain(&page[start + len..]).all(|byte| *byte == 0x5a), "beside the buffer");
            w.silent();
        });
    }
}

/// One step of a driver that does as it likes.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    start: usize,
    len: usize,
    direction: u8,
}

proptest! {
    #![proptest_config(property(super::CASES / 4))]

    #[test]
    fn guest_memory_outside_the_range_of_a_call_is_never_written(
        steps in prop::collection::vec((0u8..7, 0usize..400, 1usize..300, 0u8..3), 1..30),
    ) {
        let steps: Vec<Step> = steps.into_iter().map(|(what, start, len, direction)| Step { what, start, len, direction }).collect();
        everywhere(|edges| {
            let w = World::new();
            let mut live: Vec<(Iova, usize, usize, Direction)> = Vec::new();
            for (n, step) in steps.iter().enumerate() {
                let before = w.cpu_read(BUF, 4096);
                let which = (!live.is_empty()).then(|| live[step.start % live.len()]);
                let (mut from, mut to) = (0, 0);
                match (step.what, which) {
                    (0, _) => {
                        let direction = [ToDevice, FromDevice, Bidirectional][usize::from(step.direction)];
                        let dma = w.map(BUF + step.start as u64, step.len as u64, direction);
                        live.push((dma, step.start, step.len, direction));
                    }
                    (1, Some((dma, start, len, direction))) => {
                        live.retain(|one| one.0 != dma);
                        w.unmap(dma, len as u64, direction);
                        (from, to) = (start, start + len);
                    }
                    (2 | 3, Some((dma, start, len, direction))) => {
                        let (into, size) = (step.len % len, 1 + step.start % (len - step.len % len));
                        let at = Iova(dma.0 + into as u64);
                        if step.what == 2 { w.for_cpu(at, size as u64, direction) } else { w.for_device(at, size as u64, direction) }
                        (from, to) = (start + into, start + into + size);
                    }
                    (4, Some((dma, start, len, direction))) if direction != ToDevice => {
                        w.write(dma, &vec![u8::try_from(n).unwrap() | 0x80; len]);
                        // What is fetched early belongs to the buffer.
                        (from, to) = (start, start + len);
                    }
                    (5 | 6, _) => {
                        w.cpu_write(BUF + step.start as u64, &vec![u8::try_from(n).unwrap(); step.len]);
                        (from, to) = (step.start, step.start + step.len);
                    }
                    _ => {}
                }
                if edges == Edges::Line && from < to {
                    (from, to) = (from / 64 * 64, to.next_multiple_of(64));
                }
                let after = w.cpu_read(BUF, 4096);
                assert!(before[..from] == after[..from] && before[to..] == after[to..], "{step:?}: {from}..{to}");
            }
        });
    }
}
