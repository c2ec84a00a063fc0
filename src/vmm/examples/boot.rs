//! Boots a kernel and prints what happens, for trying things out:
//! `boot KERNEL [initrd=FILE] [mem=MIB] [cpus=N] [device=SPEC]...
//! [boot=SECONDS] [command=SECONDS] [silence=SECONDS] [total=SECONDS] [cancel=SECONDS] [-- COMMAND LINE]`

use dmavet_vmm::{Observer, Timeouts, VmConfig};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

struct Printer {
    start: Instant,
}

impl Observer for Printer {
    fn console(&self, bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "[{:7.3}] ", self.start.elapsed().as_secs_f64());
        let _ = out.write_all(bytes);
        let _ = out.flush();
    }
    fn agent(&self, event: &dmavet_vmm::AgentEvent) {
        println!("agent: {event:?}");
    }
    fn phase(&self, name: &str, since_start: Duration) {
        println!("phase {name} {:.3} s", since_start.as_secs_f64());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let kernel = args.next().ok_or("which kernel?")?;
    let mut config = VmConfig {
        kernel: kernel.into(),
        initrd: None,
        cmdline: "console=ttyS0 panic=-1".into(),
        memory: 256 << 20,
        cpus: 1,
        devices: Vec::new(),
        agent: true,
        timeouts: Timeouts::NONE,
        coherence: dmavet_coherence::Config::for_ram(0),
        modules: Vec::new(),
        watch: dmavet_vmm::WatchConfig::OFF,
        faults: Vec::new(),
        tap: None,
    };
    let seconds = |text: &str| text.parse().map(Duration::from_secs_f64);
    let mut cancel_after = None;
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if arg == "--" => config.cmdline = args.by_ref().collect::<Vec<_>>().join(" "),
            Some(("initrd", value)) => config.initrd = Some(value.into()),
            Some(("mem", value)) => config.memory = value.parse::<u64>()? << 20,
            Some(("cpus", value)) => config.cpus = value.parse()?,
            Some(("boot", value)) => config.timeouts.boot = Some(seconds(value)?),
            Some(("silence", value)) => config.timeouts.silence = Some(seconds(value)?),
            Some(("device", value)) => config.devices.push(value.parse()?),
            Some(("command", value)) => config.timeouts.command = Some(seconds(value)?),
            Some(("total", value)) => config.timeouts.total = Some(seconds(value)?),
            Some(("cancel", value)) => cancel_after = Some(seconds(value)?),
            _ => return Err(format!("what is {arg}?").into()),
        }
    }
    config.coherence = dmavet_coherence::Config::for_ram(config.memory);
    let cancel = EventFd::new(libc::EFD_NONBLOCK)?;
    if let Some(after) = cancel_after {
        let cancel = cancel.try_clone()?;
        std::thread::spawn(move || {
            std::thread::sleep(after);
            let _ = cancel.write(1);
        });
    }
    let printer = Arc::new(Printer { start: Instant::now() });
    let outcome = dmavet_vmm::run(config, printer, &cancel)?;
    println!("end: {:?}", outcome.end);
    println!("exit: {:?}, setup failed: {:?}", outcome.exit, outcome.setup_failed);
    println!("{:?}", outcome.stats);
    let summary = outcome.coherence.finish();
    for finding in &summary.findings {
        println!("{:?} {}", finding.code, finding.message);
    }
    println!("{:?}", summary.stats);
    Ok(())
}
