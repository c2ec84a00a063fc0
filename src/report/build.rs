//! From the core's summary to the report: addresses become functions and source lines.

use crate::exit::Failure;
use crate::report::coverage::{self, ModuleCoverage};
use crate::report::symbols::{ModuleImage, SourceFrame, Symbolizer};
use crate::report::watch::{RunWatch, WatchReport};
use crate::report::{
    AccessDetail, ByteRange, FindingVolatile, Guess, Operation, Report, ReportAccess, ReportEvent, ReportFinding, ReportMapping,
    ReportSite, RunDevice, RunInfo, RunVolatile, TwoSides, Untaken, text,
};
use crate::run::{Facts, Plan, Stop, judge};
use dmavet_coherence::site::Frame;
use dmavet_coherence::{AccessInfo, CallKind, Code, Family, Finding, LostWrite, MappingInfo, Severity, SiteId, Summary};
use dmavet_vmm::WatchStats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

/// What the guest told about the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// How the guest stopped.
    pub stop: Stop,
    /// The workload's exit status.
    pub workload: Option<i32>,
    /// What kept the guest's init from setting the run up.
    pub setup_failed: Option<String>,
    /// Phases with their beginning since power-on.
    pub phases: Vec<(String, Duration)>,
    /// Counters of the machine, by name.
    pub counters: BTreeMap<String, u64>,
    /// Figures of the CPU watch.
    pub watch: WatchStats,
}

/// Builds the report of a run.
///
/// # Errors
/// When a module of the plan cannot be read back.
pub fn report(plan: &Plan, summary: &Summary, told: &Told) -> Result<Report, Failure> {
    let mut images = Vec::new();
    for module in &plan.modules {
        images.push(ModuleImage::open(&module.debug).map_err(|e| Failure::internal(e.to_string()))?);
    }
    let mut symbolizer = Symbolizer::new(images, &plan.kernel);
    symbolizer.learn(&summary.sites);
    let mut modules = Vec::new();
    for module in plan.modules.iter().filter(|m| m.under_test) {
        modules.push(coverage::of_module(&module.debug, &symbolizer, &summary.sites).map_err(|e| Failure::internal(e.to_string()))?);
    }
    let builder = Builder { symbolizer: &symbolizer, summary };
    let mut findings = merge(summary.findings.iter().map(|f| builder.finding(f)).collect());
    let baseline =
        plan.baseline.as_ref().map(|baseline| baseline.apply(&mut findings, &drivers(plan, summary), told.stop == Stop::PowerOff));
    let verdict = judge(&facts(plan, summary, told, &modules, &findings), &plan.policy);
    let failed = told.workload != Some(0) && summary.stopped_at.is_none();
    Ok(Report {
        format: Report::FORMAT.into(),
        version: Report::VERSION,
        verdict,
        run: run_info(plan, summary),
        findings,
        baseline,
        untaken: if failed { builder.untaken() } else { Vec::new() },
        coverage: modules,
        volatile: RunVolatile {
            phases: told.phases.iter().map(|(name, at)| (name.clone(), u64::try_from(at.as_millis()).unwrap_or(u64::MAX))).collect(),
            counters: counters(summary, told),
            watch: WatchReport::new(&plan.watch, &told.watch, &summary.stats, whole(told)),
        },
    })
}

/// One finding for each (severity, code, device, place of the map call, place of the offence), the first of each with the
/// count of all, in an order that does not depend on the order of events.
///
/// The core tells call stacks apart whole; here the place is the innermost physical frame in a module with its inlined
/// functions, so that the same two lines reached from two callers are one finding.
fn merge(mut findings: Vec<ReportFinding>) -> Vec<ReportFinding> {
    findings.sort_by_key(|f| f.volatile.first_seq);
    let mut merged: BTreeMap<_, ReportFinding> = BTreeMap::new();
    for finding in findings {
        match merged.entry(identity(&finding)) {
            Entry::Vacant(entry) => {
                entry.insert(finding);
            }
            Entry::Occupied(mut entry) => {
                let first = &mut entry.get_mut().volatile;
                first.count = first.count.saturating_add(finding.volatile.count);
                first.last_seq = first.last_seq.max(finding.volatile.last_seq);
            }
        }
    }
    merged.into_values().collect()
}

/// What makes a finding the same in every run of the same thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its severity.
    pub severity: Severity,
    /// Its code.
    pub code: String,
    /// The device.
    pub device: String,
    /// Where the mapping was made.
    pub made: Vec<String>,
    /// Where the offence happened.
    pub offence: Vec<String>,
}

/// The identity of a finding.
#[must_use]
pub fn identity(finding: &ReportFinding) -> Identity {
    Identity {
        severity: finding.severity,
        code: finding.code.clone(),
        device: finding.device.clone(),
        made: place(finding.mapping.as_ref().map(|m| &m.made)),
        offence: place(finding.offence.as_ref()),
    }
}

/// The innermost function of a module, inlined ones included: which instruction of the kernel's own `memcpy` it was does not
/// matter. Where there is no module, all frames.
fn place(site: Option<&ReportSite>) -> Vec<String> {
    let Some(site) = site else { return Vec::new() };
    let Some(end) = site.frames.iter().position(|f| !f.module.is_empty() && !f.inlined) else {
        return site.frames.iter().map(text::short).collect();
    };
    site.frames.iter().take(end + 1).filter(|f| !f.module.is_empty()).map(text::short).collect()
}

fn facts(plan: &Plan, summary: &Summary, told: &Told, modules: &[ModuleCoverage], findings: &[ReportFinding]) -> Facts {
    let reached = modules.iter().map(ModuleCoverage::reached).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    Facts {
        stop: told.stop.clone(),
        workload: told.workload,
        setup_failed: told.setup_failed.clone(),
        stopped_at: summary.stopped_at,
        findings: findings.iter().filter(|f| f.accepted.is_none()).map(|f| f.severity).collect(),
        accepted: findings.iter().filter(|f| f.accepted.is_some()).count(),
        drivers_bound: summary.devices.iter().map(|d| d.drivers.len()).sum(),
        mappings: summary.devices.iter().map(|d| d.mappings).sum(),
        device_accesses: summary.devices.iter().map(|d| d.reads + d.writes).sum(),
        devices: plan.devices.len(),
        coverage: reached,
    }
}

/// The drivers a run could have had findings of.
fn drivers(plan: &Plan, summary: &Summary) -> Vec<String> {
    let bound = summary.devices.iter().flat_map(|device| &device.drivers);
    bound.chain(plan.modules.iter().filter(|module| module.under_test).map(|module| &module.name)).cloned().collect()
}

fn run_info(plan: &Plan, summary: &Summary) -> RunInfo {
    RunInfo {
        title: plan.title.clone(),
        command: plan.command.clone(),
        kernel: plan.release.clone(),
        cpus: plan.cpus,
        memory: plan.memory,
        line_size: plan.machine.line_size,
        profile: plan.machine.profile.to_string(),
        edges: plan.machine.edges.to_string(),
        cache: plan.machine.cache.to_string(),
        seed: plan.machine.seed,
        watch: RunWatch::of(&plan.watch),
        devices: summary
            .devices
            .iter()
            .map(|d| RunDevice { device: d.requester.to_string(), model: d.model.clone(), drivers: d.drivers.clone() })
            .collect(),
    }
}

fn counters(summary: &Summary, told: &Told) -> BTreeMap<String, u64> {
    let stats = &summary.stats;
    let mut counters = told.counters.clone();
    for (name, value) in [
        ("mappings", stats.maps),
        ("unmaps", stats.unmaps),
        ("syncs_for_cpu", stats.syncs_for_cpu),
        ("syncs_for_device", stats.syncs_for_device),
        ("handovers", stats.handovers),
        ("bytes_to_device", stats.bytes_to_device),
        ("bytes_to_cpu", stats.bytes_to_cpu),
        ("device_reads", stats.device_reads),
        ("device_writes", stats.device_writes),
        ("device_bytes_read", stats.device_bytes_read),
        ("device_bytes_written", stats.device_bytes_written),
        ("injected_failures", stats.injected_failures),
        ("peak_mappings", stats.peak_mappings),
        ("peak_tracked_pages", stats.peak_tracked_pages),
        ("foreign_offences", stats.foreign_offences),
        ("blind_spots", stats.blind_spots),
    ] {
        counters.insert(name.into(), value);
    }
    for device in &summary.devices {
        for (kind, prefix) in [(CallKind::Map, CALLS_MAP), (CallKind::Alloc, CALLS_ALLOC)] {
            if let Some(calls) = device.calls.get(&kind) {
                counters.insert(format!("{prefix}{}", device.requester), *calls);
            }
        }
    }
    counters
}

/// Begins the name of the counter of a device's map calls, failed ones included; the device follows.
pub const CALLS_MAP: &str = "calls_map_";
/// The same for its alloc calls.
pub const CALLS_ALLOC: &str = "calls_alloc_";

/// The time from power-on to the last phase.
fn whole(told: &Told) -> Duration {
    told.phases.iter().map(|(_, at)| *at).max().unwrap_or_default()
}

struct Builder<'a> {
    symbolizer: &'a Symbolizer,
    summary: &'a Summary,
}

impl Builder<'_> {
    fn resolve(&self, id: SiteId) -> impl Iterator<Item = (&Frame, Vec<SourceFrame>)> {
        self.summary.sites.frames(id).iter().map(|frame| (frame, self.symbolizer.resolve(frame)))
    }

    fn site(&self, what: impl Into<String>, id: SiteId) -> ReportSite {
        let mut site = ReportSite { what: what.into(), frames: Vec::new(), guesses: Vec::new() };
        for (frame, resolved) in self.resolve(id) {
            if frame.reliable {
                site.frames.extend(resolved);
            } else if let Some(frame) = resolved.into_iter().next_back() {
                // Whatever may have been inlined there, nothing proves that the call was made at all.
                site.guesses.push(Guess { after: site.frames.len(), frame });
            }
        }
        site
    }

    fn access(&self, access: &AccessInfo, site: SiteId) -> AccessDetail {
        let frame = self.resolve(site).next().and_then(|(_, resolved)| resolved.into_iter().next_back());
        AccessDetail {
            len: u64::from(access.len),
            cpu: access.cpu,
            rip: format!("{:#x}", access.rip),
            at: frame.map(|f| text::function(&f)).unwrap_or_default(),
        }
    }

    fn mapping(&self, mapping: &MappingInfo) -> ReportMapping {
        let (family, verb) = match mapping.family {
            Family::Single => ("single", "Mapped"),
            Family::Sg => ("sg", "Mapped"),
            Family::Resource => ("resource", "Mapped"),
            Family::Coherent => ("coherent", "Allocated"),
            Family::Pages => ("pages", "Allocated"),
        };
        ReportMapping {
            family: family.into(),
            size: mapping.size,
            direction: mapping.direction.name().into(),
            made: self.site(verb, mapping.map_site),
        }
    }

    fn finding(&self, finding: &Finding) -> ReportFinding {
        let range = finding.range.map(|r| ByteRange { offset: r.start, len: r.len() });
        ReportFinding {
            code: finding.code.to_string(),
            slug: finding.slug.clone(),
            severity: finding.severity,
            kind: finding.kind.map(|k| k.to_string()),
            device: finding.requester.map_or_else(|| "-".into(), |r| r.to_string()),
            driver: finding.driver.clone(),
            advice: finding.advice.clone(),
            mapping: finding.mapping.as_ref().map(|m| self.mapping(m)),
            range,
            handover: finding.handover.as_ref().map(|h| self.site(format!("Ownership last changed: {}", h.operation), h.site)),
            offence: (finding.offence.site != SiteId::default() || !finding.offence.what.is_empty())
                .then(|| self.site(offence(&finding.offence.what), finding.offence.site)),
            access: finding
                .access
                .as_ref()
                .map(|a| ReportAccess { operation: if a.write { Operation::Write } else { Operation::Read }, user: a.user }),
            accepted: None,
            consequence: finding.consequence.as_ref().map(|c| self.site(consequence(finding.code, &c.what), c.site)),
            volatile: FindingVolatile {
                message: finding.message.clone(),
                bytes: two_sides(finding.bytes_at, &finding.cpu_bytes, &finding.device_bytes),
                access: finding.access.as_ref().map(|a| self.access(a, finding.offence.site)),
                count: finding.count,
                first_seq: finding.first_seq,
                last_seq: finding.last_seq,
                handles: finding
                    .mapping
                    .as_ref()
                    .map(|m| (format!("{:#x}", m.handle.0), format!("{:#x}", m.handle_end.0.saturating_sub(1)))),
                history: finding
                    .history
                    .iter()
                    .map(|entry| {
                        let times = if entry.count > 1 { format!(" x{}", entry.count) } else { String::new() };
                        ReportEvent {
                            seq: entry.seq,
                            what: format!("{}{times}, bytes {:#x}..{:#x}", entry.event, entry.range.start, entry.range.end),
                            place: self.site("", entry.site).top().map(text::short).unwrap_or_default(),
                            event: entry.event.clone(),
                            range: Some(ByteRange { offset: entry.range.start, len: entry.range.len() }),
                            count: entry.count,
                        }
                    })
                    .collect(),
            },
        }
    }

    fn untaken(&self) -> Vec<Untaken> {
        let mut all: BTreeMap<_, Untaken> = BTreeMap::new();
        for device in &self.summary.devices {
            for lost in &device.lost_writes {
                let untaken = self.untaken_one(device.requester.to_string(), lost);
                let key = (untaken.device.clone(), place(Some(&untaken.mapping.made)), place(untaken.passed.as_ref()));
                all.entry(key).or_insert(untaken);
            }
        }
        all.into_values().collect()
    }

    fn untaken_one(&self, device: String, lost: &LostWrite) -> Untaken {
        Untaken {
            device,
            mapping: self.mapping(&lost.mapping),
            range: ByteRange { offset: lost.range.start, len: lost.range.len() },
            bytes: two_sides(lost.bytes_at, &lost.cpu_bytes, &lost.device_bytes).unwrap_or(TwoSides {
                offset: lost.bytes_at,
                cpu: String::new(),
                device: String::new(),
            }),
            passed: Some(self.site(format!("The chance to take them passed: {}", lost.what), lost.site)),
        }
    }
}

/// What is said of the place of an offence. A device has no stack: its access is put down to the CPU's last write to it.
fn offence(what: &str) -> String {
    if what.starts_with("device ") { format!("Offence: {what}, started by this register write") } else { format!("Offence: {what}") }
}

/// What is said of the second instant. A write to memory the device owns is lost there.
fn consequence(code: Code, what: &str) -> String {
    let heading = match code {
        Code::DV203 => "And lost here",
        Code::DV211 => "The hand-over that came too late",
        _ => "What came of it",
    };
    format!("{heading}: {what}")
}

fn two_sides(offset: u64, cpu: &[u8], device: &[u8]) -> Option<TwoSides> {
    (!cpu.is_empty() || !device.is_empty()).then(|| TwoSides { offset, cpu: hex(cpu), device: hex(device) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
