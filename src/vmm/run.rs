//! One run from beginning to end.

use crate::code::GuestCode;
use crate::config::VmConfig;
use crate::error::VmmError;
use crate::journal::Journal;
use crate::machine::Chassis;
use crate::observer::Observer;
use crate::outcome::{Outcome, VmStats, resident_beyond_shared};
use crate::vcpu::LastSeen;
use crate::watchdog::Watchdog;
use crate::wiring;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// Boots the guest of `config`, runs it until something ends it, and tells `observer` about it meanwhile.
///
/// `cancel` ends the run when it becomes readable; it is not read.
///
/// # Errors
/// When the run could not be started or the host failed. Everything a guest can do to itself is an [`End`](crate::End).
pub fn run(config: VmConfig, observer: Arc<dyn Observer>, cancel: &EventFd) -> Result<Outcome, VmmError> {
    if !(1..=VmConfig::MAX_CPUS).contains(&config.cpus) {
        return Err(VmmError::Cpus { got: config.cpus });
    }
    VmConfig::check_devices(&config.devices)?;
    let journal = Arc::new(Journal::new(observer.clone()));
    let chassis = Chassis::new(config.memory, config.cpus, config.watch.pages(), journal.clone())?;
    let wiring::Wired { pci, platform, coherence, watch, code } = wiring::populate(&chassis, &config, observer.clone())?;
    let machine = chassis.assemble(pci, platform, watch, observer)?;
    journal.phase("machine");
    machine.load(&config.kernel, config.initrd.as_deref(), &config.cmdline)?;
    journal.phase("loaded");
    let remains = machine.run(Watchdog::new(config.timeouts), cancel)?;
    let memory_beyond = resident_beyond_shared();
    journal.phase("end");
    let (phases, exit, setup_failed) = journal.close();
    let stats = VmStats {
        exits: remains.exits.by_name(),
        console_bytes: remains.console_bytes,
        guest_memory: config.memory,
        memory_beyond,
        stacks: code.stats(),
        watch: remains.watch,
    };
    let last_seen = remains.last_seen.iter().map(|cpu| last_seen(cpu, &code)).collect();
    Ok(Outcome { end: remains.end, coherence, exit, setup_failed, phases, stats, last_seen })
}

/// What a CPU was doing, in words.
fn last_seen(cpu: &LastSeen, code: &GuestCode) -> String {
    let symbol = code.name(cpu.rip);
    let place = if symbol.is_empty() { format!("{:#x}", cpu.rip) } else { symbol };
    let (what, mask) = (if cpu.halted { "halted" } else { "running" }, if cpu.interrupts { "" } else { ", interrupts off" });
    format!("CPU {} {what} at {place}{mask}", cpu.cpu)
}
