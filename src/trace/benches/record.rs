//! What recording costs, beside the same without it, and how large a trace gets. `cargo bench -p dmavet-trace`

use criterion::{Criterion, criterion_group, criterion_main};
use dmavet_coherence::*;
use dmavet_trace::{Reader, Recorder, replay};
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 64 << 20;
const RAM_BYTES: usize = 64 << 20;
const BUF: u64 = 0x10_0000;
const DEVICE: Requester = Requester::Pci(Bdf::new(0, 2, 0));
const CALLER: Caller = Caller { requester: DEVICE, site: SiteId(0), cpu: 0 };

/// Keeps a trace in memory, or throws it away.
#[derive(Clone, Default)]
struct Sink(Option<Arc<Mutex<Vec<u8>>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kept) = &self.0 {
            kept.lock().expect("one thread").extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    core: Coherence,
    ram: Arc<GuestMemoryMmap>,
    view: DmaView,
    recorder: Option<Arc<Recorder>>,
}

impl Machine {
    fn new(sink: Option<Sink>) -> Self {
        let ram = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).expect("memory"));
        let recorder = sink.map(|sink| Arc::new(Recorder::new(Box::new(sink))));
        let tap = recorder.clone().map(|recorder| recorder as Arc<dyn Tap>);
        let core = Coherence::with_tap(Config::for_ram(RAM), Arc::clone(&ram), tap).expect("a core");
        core.set_bus_master(DEVICE, true);
        core.call(CALLER, &ApiCall::Bound { driver: "bench".into() });
        Self { view: core.view(DEVICE), core, ram, recorder }
    }

    fn map(&self, gpa: u64, len: u64, direction: Direction) -> Iova {
        let call = ApiCall::Map(MapCall {
            family: Family::Single,
            extents: vec![Extent { gpa: Gpa(gpa), len }],
            direction,
            attrs: Attrs::empty(),
            limits: Limits { mask: u64::MAX, ..Limits::default() },
            kind: PageKind::Slab,
            object: (0, 0),
            cpu_addr: 0,
        });
        match self.core.call(CALLER, &call) {
            Answer::Handles(handles) => handles[0].0,
            other => panic!("{other:?}"),
        }
    }

    fn unmap(&self, iova: Iova, len: u64, direction: Direction) {
        let call = UnmapCall { family: Family::Single, ranges: vec![(iova, len)], direction, attrs: Attrs::empty(), cpu_addr: 0 };
        self.core.call(CALLER, &ApiCall::Unmap(call));
    }

    fn sync(&self, for_cpu: bool, iova: Iova, len: u64) {
        let direction = Direction::Bidirectional;
        self.core.call(CALLER, &ApiCall::Sync(SyncCall { for_cpu, sg: false, ranges: vec![(iova, len)], direction }));
    }

    /// A packet of 1500 bytes that comes in and one that goes out, as a driver of a network card does it: 12 inputs.
    fn packets(&self, n: u64) {
        let (rx, tx) = (BUF + n % 256 * 4096, 2 * BUF + n % 256 * 4096);
        let packet: [u8; 1500] = std::array::from_fn(|i| (i as u64 * (n % 7 + 1)).to_le_bytes()[0]);
        let to = self.map(rx, 2048, Direction::FromDevice);
        self.core.kick(DEVICE, SiteId(0));
        self.view.write_slice(&packet, GuestAddress(to.0)).expect("written");
        self.core.signalled(DEVICE);
        self.unmap(to, 2048, Direction::FromDevice);
        self.ram.write_slice(&packet[..100], GuestAddress(tx)).expect("RAM");
        let from = self.map(tx, 1500, Direction::ToDevice);
        self.core.kick(DEVICE, SiteId(0));
        let mut sent = [0; 1500];
        self.view.read_slice(&mut sent, GuestAddress(from.0)).expect("read");
        black_box(sent);
        self.core.signalled(DEVICE);
        self.unmap(from, 1500, Direction::ToDevice);
    }
}

fn costs(c: &mut Criterion) {
    for (name, sink) in [("plain", None), ("recorded", Some(Sink::default()))] {
        let m = Machine::new(sink);
        let mut group = c.benchmark_group(name);
        let dma = m.map(BUF, 4096, Direction::Bidirectional);
        let mut word = [0u8; 16];
        group.bench_function("view_read_16", |b| b.iter(|| m.view.read_slice(black_box(&mut word), GuestAddress(dma.0))));
        group.bench_function("view_write_16", |b| b.iter(|| m.view.write_slice(black_box(&word), GuestAddress(dma.0))));
        group.bench_function("view_write_4k", |b| b.iter(|| m.view.write_slice(black_box(&[7; 4096]), GuestAddress(dma.0))));
        m.sync(true, dma, 4096);
        group.bench_function("sync_pair_4k_untouched", |b| {
            b.iter(|| {
                m.sync(true, dma, 4096);
                m.sync(false, dma, 4096);
            });
        });
        group.bench_function("map_unmap_4k", |b| {
            b.iter(|| {
                let dma = m.map(4 * BUF, 4096, Direction::ToDevice);
                m.unmap(dma, 4096, Direction::ToDevice);
            });
        });
        let mut n = 0;
        group.bench_function("packets", |b| {
            b.iter(|| {
                n += 1;
                m.packets(n);
            });
        });
        group.finish();
    }
}

/// Prints what a trace of packets comes to, and how fast it is replayed.
fn figures(_: &mut Criterion) {
    const PACKETS: u64 = 20_000;
    let mut times = Vec::new();
    let kept = Sink(Some(Arc::default()));
    for sink in [None, Some(kept.clone())] {
        let m = Machine::new(sink);
        let begun = Instant::now();
        (0..PACKETS).for_each(|n| m.packets(n));
        times.push(begun.elapsed().as_secs_f64());
        let _ = m.core.finish();
        if let Some(recorder) = m.recorder {
            let f = recorder.finish().expect("recorded");
            let each = |bytes: u64| bytes as f64 / f.inputs as f64;
            println!(
                "trace of packets: {} inputs, {:.1} bytes each ({:.1} before compression, of which {:.1} guest RAM and {:.1} device writes)",
                f.inputs,
                each(f.written),
                each(f.contents),
                each(f.ram),
                each(f.stored)
            );
            println!("recording: {:.2} times the time without", times[1] / times[0]);
            let bytes = kept.0.as_ref().map(|kept| kept.lock().expect("one thread").clone()).unwrap_or_default();
            let begun = Instant::now();
            let replayed = replay(Reader::new(&bytes[..]).expect("a trace")).expect("replayed");
            assert_eq!(replayed.divergence, None);
            println!("replay: {:.2} times the time of the run", begun.elapsed().as_secs_f64() / times[0]);
        }
    }
}

fn short() -> Criterion {
    Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500))
}

criterion_group! { name = benches; config = short(); targets = costs, figures }
criterion_main!(benches);
