mod bench;
mod nvme;
mod virtio;

use super::*;
use crate::board::Activity;
use crate::end::EndCell;
use crate::journal::Stage;
use crate::observer::testing::Recorder;
use dmavet_coherence::Config;
use vm_memory::GuestAddress;

fn sink() -> Events {
    let observer: Arc<dyn Observer> = Arc::new(Recorder::default());
    Events {
        journal: Arc::new(Journal::new(observer.clone())),
        observer,
        end: Arc::new(EndCell::new().unwrap()),
        curtain: Arc::default(),
        activity: Arc::new(Activity::default()),
        watch: None,
        code: Arc::new(GuestCode::new("/nonexistent".into(), Vec::new())),
    }
}

#[test]
fn a_hello_shows_the_devices_at_once() {
    let mut sink = sink();
    let ram = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let coherence = Coherence::new(Config::for_ram(1 << 20), ram).unwrap();
    let spec: DeviceSpec = "ncdma".parse().unwrap();
    let view = coherence.view(Requester::Pci(Bdf::new(0, 2, 0)));
    let context = DeviceContext {
        memory: DeviceMemory { poll: view.polling(), used: view },
        msi: Arc::new(dmavet_devices::pci::NoInterrupts),
        number: 0,
    };
    let mut pci = PciRoot::default();
    pci.add(Bdf::new(0, 2, 0), dmavet_devices::build(&spec, context).unwrap(), Some(sink.curtain.clone()), None);
    let mut id = [0; 4];
    pci.read_config(Bdf::new(0, 2, 0), 0, &mut id);
    assert_eq!(id, [0xff; 4]);
    assert_eq!(sink.journal.stage(), Stage::Booting);
    sink.event(AgentEvent::Hello { release: "6.1".into(), cpus: 1 });
    pci.read_config(Bdf::new(0, 2, 0), 0, &mut id);
    assert_eq!(id, [0x5e, 0xda, 0x10, 0x00]);
    assert!(matches!(sink.journal.stage(), Stage::Working(_)));
    assert_eq!(sink.end.get(), None);
}

#[test]
fn verdicts_are_kept_and_the_end_ends() {
    let mut sink = sink();
    sink.event(AgentEvent::Phase("workload".into()));
    sink.event(AgentEvent::Exit(3));
    sink.event(AgentEvent::Exit(0));
    assert_eq!(sink.journal.stage(), Stage::Finished);
    assert_eq!(sink.end.get(), None);
    sink.event(AgentEvent::End);
    sink.event(AgentEvent::Panic("too late".into()));
    assert_eq!(sink.end.get(), Some(End::Complete));
    let (phases, exit, failed) = sink.journal.close();
    assert_eq!(phases[0].0, "workload");
    assert_eq!((exit, failed), (Some(3), None));
    assert_eq!(sink.activity.count(), 5);
}

#[test]
fn a_panic_and_a_failed_set_up_have_their_own_place() {
    let mut sink = sink();
    sink.event(AgentEvent::SetupFailed("ncdma: no such device".into()));
    sink.event(AgentEvent::Panic("Oops".into()));
    assert_eq!(sink.end.get(), Some(End::Panic("Oops".into())));
    assert_eq!(sink.journal.close().2.as_deref(), Some("ncdma: no such device"));
}

#[test]
fn a_doorbell_is_one_frame_and_an_unknown_one_is_no_site() {
    let ram = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let coherence = Coherence::new(Config::for_ram(1 << 20), ram).unwrap();
    let tie = Tie {
        coherence,
        requester: Requester::Pci(Bdf::new(0, 2, 0)),
        code: Arc::new(GuestCode::new("/nonexistent".into(), Vec::new())),
        sites: Mutex::default(),
    };
    assert_eq!(tie.site(0), SiteId::default());
    let site = tie.site(0xffff_ffff_c000_1234);
    assert_ne!(site, SiteId::default());
    assert_eq!(tie.site(0xffff_ffff_c000_1234), site);
    for rip in 1..5000 {
        tie.site(rip);
    }
    assert_eq!(tie.sites.lock().unwrap().sites.len(), Tie::MAX_SITES, "a guest cannot make this grow without bound");
}

#[test]
fn without_an_agent_the_devices_are_there_from_the_start() {
    let observer: Arc<dyn Observer> = Arc::new(Recorder::default());
    let journal = Arc::new(Journal::new(observer.clone()));
    let chassis = Chassis::new(16 << 20, 1, crate::memory::Pages::Any, journal).unwrap();
    let mut pci = PciRoot::default();
    bare(&chassis, &["ncdma".parse().unwrap(), "virtio-blk".parse().unwrap()], &mut pci).unwrap();
    let id = |slot| {
        let mut id = [0; 4];
        pci.read_config(Bdf::new(0, slot, 0), 0, &mut id);
        id
    };
    assert_eq!(id(1), [0xff; 4], "no agent");
    assert_eq!(id(2), [0x5e, 0xda, 0x10, 0x00]);
    assert_eq!(id(3), [0xf4, 0x1a, 0x42, 0x10]);
    assert!(bare(&chassis, &["ncdma-platform".parse().unwrap()], &mut PciRoot::default()).is_err());
}
