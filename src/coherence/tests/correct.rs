//! Correct drivers are silent, and get their data, on every machine, with every edge and whatever the cache does.

use super::fixture::*;
use super::idioms;
use crate::*;

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
