//! The rules that make mutants: what can be done to a call of the DMA API, whatever the driver.

use super::api::{self, Kind, Site, Table};
use super::scan::Source;
use std::ops::Range;

/// What kind of mistake a mutant is, with the findings that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An unmap is left out.
    UnmapDeleted,
    /// A free is left out.
    FreeDeleted,
    /// A sync for the CPU is left out.
    SyncCpuDeleted,
    /// A sync for the device is left out.
    SyncDeviceDeleted,
    /// The other direction, or both.
    Direction,
    /// Half of the bytes.
    Size,
    /// A statement has sunk to the end of its block.
    Late,
    /// A mapping ends as soon as it is made.
    Early,
    /// The buffer gets its last byte after it was handed over.
    LateWrite,
    /// Nobody looks whether a map call failed.
    Unchecked,
}

impl Class {
    pub const ALL: [Self; 10] = [
        Self::UnmapDeleted,
        Self::FreeDeleted,
        Self::SyncCpuDeleted,
        Self::SyncDeviceDeleted,
        Self::Direction,
        Self::Size,
        Self::Late,
        Self::Early,
        Self::LateWrite,
        Self::Unchecked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::UnmapDeleted => "unmap deleted",
            Self::FreeDeleted => "free deleted",
            Self::SyncCpuDeleted => "sync for CPU deleted",
            Self::SyncDeviceDeleted => "sync for device deleted",
            Self::Direction => "direction",
            Self::Size => "size",
            Self::Late => "late",
            Self::Early => "early",
            Self::LateWrite => "late write",
            Self::Unchecked => "error unchecked",
        }
    }

    /// The codes that name such a mistake; which of them depends on who meets it first.
    pub const fn codes(self) -> &'static [&'static str] {
        match self {
            // Never unmapped, freed under the mapping, mapped once more, or read or written as if it were the CPU's.
            Self::UnmapDeleted => &["DV108", "DV116", "DV117", "DV202", "DV203", "DV204", "DV217"],
            Self::FreeDeleted => &["DV108"],
            Self::SyncCpuDeleted => &["DV202", "DV203", "DV204", "DV212", "DV213", "DV217"],
            Self::SyncDeviceDeleted => &["DV201", "DV203", "DV210", "DV211", "DV213", "DV217", "DV222"],
            Self::Direction => &["DV103", "DV205", "DV206", "DV216"],
            // 209: what is beyond the page belongs to no mapping.
            Self::Size => &["DV102", "DV107", "DV207", "DV209", "DV214"],
            Self::Late => &["DV101", "DV108", "DV117", "DV201", "DV202", "DV203", "DV204", "DV211", "DV217"],
            Self::Early => &["DV101", "DV115", "DV208", "DV209"],
            Self::LateWrite => &["DV201", "DV203", "DV401"],
            Self::Unchecked => &["DV109"],
        }
    }
}

/// A change of one call.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// File below the kernel's source.
    pub file: String,
    pub function: String,
    /// Line of the call, and the lines of its function.
    pub line: u32,
    pub lines: Range<u32>,
    pub class: Class,
    /// The call as written.
    pub call: String,
    /// What it depends on, innermost first (`if (...)`).
    pub heads: Vec<String>,
    /// What becomes of it.
    pub change: String,
    edits: Vec<(Range<usize>, String)>,
}

impl Mutant {
    /// Names it from run to run.
    pub fn key(&self) -> String {
        format!("{}:{}: {}: {}: {}", self.file, self.line, self.function, self.class.name(), self.change)
    }

    /// The file with the change. No line moves.
    pub fn apply(&self, source: &Source) -> String {
        edited(&source.text, &self.edits)
    }
}

/// `text` with ranges replaced; those at the same place in the order given.
pub fn edited(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let mut sorted: Vec<_> = edits.iter().collect();
    sorted.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut result, mut at) = (String::with_capacity(text.len()), 0);
    for (range, new) in sorted {
        result.push_str(text.get(at..range.start).unwrap_or_default());
        result.push_str(new);
        // What follows stays on its line.
        let gone = text.get(range.clone()).unwrap_or_default();
        result.extend(std::iter::repeat_n('\n', gone.matches('\n').count().saturating_sub(new.matches('\n').count())));
        at = range.end;
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

/// Every mutant of a file.
pub fn mutants(file: &str, source: &Source, table: &Table) -> Vec<Mutant> {
    api::sites(source, table).iter().flat_map(|site| of_site(file, source, site)).collect()
}

fn of_site(file: &str, source: &Source, site: &Site) -> Vec<Mutant> {
    let mut found = Vec::new();
    let mut add = |class: Class, change: String, edits: Vec<(Range<usize>, String)>| {
        found.push(Mutant {
            file: file.to_owned(),
            function: site.function.name.clone(),
            line: source.line(site.call.span.start),
            lines: source.line(site.function.body.start)..source.line(site.function.body.end) + 1,
            class,
            call: source.said(&site.call.span),
            heads: source.heads(&site.function, site.call.span.start),
            change,
            edits,
        });
    };
    let span = &site.call.span;
    let arg = |place: Option<usize>| place.and_then(|n| site.call.args.get(n)).cloned();
    let deleted = match site.api.kind {
        Kind::Unmap => Some(Class::UnmapDeleted),
        Kind::Free => Some(Class::FreeDeleted),
        Kind::SyncCpu => Some(Class::SyncCpuDeleted),
        Kind::SyncDevice => Some(Class::SyncDeviceDeleted),
        _ => None,
    };
    let name = &site.call.name;
    if let Some(class) = deleted.filter(|_| source.is_statement(&site.call)) {
        add(class, format!("`{name}` deleted"), vec![(span.clone(), "(void)0".to_owned())]);
    }
    if site.api.kind == Kind::TakeBack {
        add(Class::UnmapDeleted, format!("`{name}` finds nothing"), vec![(span.clone(), "NULL".to_owned())]);
    }
    if site.api.kind == Kind::Check {
        add(Class::Unchecked, format!("`{name}` finds nothing"), vec![(span.clone(), "0".to_owned())]);
    }
    if let Some(range) = arg(site.api.direction) {
        let old = source.text.get(range.clone()).unwrap_or_default();
        add(Class::Direction, format!("`{name}`: the other direction"), vec![(range.clone(), opposite(old))]);
        if !old.contains("BIDIRECTIONAL") {
            add(Class::Direction, format!("`{name}`: both directions"), vec![(range, "DMA_BIDIRECTIONAL".to_owned())]);
        }
    }
    if let Some(range) = arg(site.api.size) {
        let half = format!("(({}) + 1) / 2", source.text.get(range.clone()).unwrap_or_default());
        add(Class::Size, format!("`{name}`: half of {}", source.said(&range)), vec![(range, half)]);
    }
    // A free that comes late harms nobody: the buffer is the driver's own until then.
    if deleted.is_some_and(|class| class != Class::FreeDeleted)
        && let Some(statement) = source.in_block(&site.call)
        && let Some(to) = source.furthest(statement.end)
    {
        add(Class::Late, format!("`{name}` at the end of its block"), sunk(source, site, statement, to));
    }
    let filled = |template: &str| {
        let args = site.call.args.iter().map(|range| source.text.get(range.clone()).unwrap_or_default());
        // From the back: `$1` is the beginning of `$10`.
        let args: Vec<&str> = args.collect();
        args.iter().enumerate().rev().fold(template.to_owned(), |text, (n, arg)| text.replace(&format!("${n}"), arg))
    };
    let before_and_after = |before: &str, after: &str| {
        let before = format!("({{ {before} __auto_type dmavet_result = ").replace('\n', " ");
        let after = format!("; {after} dmavet_result; }})").replace('\n', " ");
        vec![(span.start..span.start, before), (span.end..span.end, after)]
    };
    if let Some(undo) = site.api.undo {
        add(Class::Early, format!("`{name}` undone at once"), before_and_after("", &filled(undo).replace("$r", "dmavet_result")));
    }
    if let Some(byte) = site.api.byte {
        // Right for a coherent machine: the device is not told of the buffer before the byte is back.
        let flip = "*dmavet_byte ^= 0xff; barrier();";
        let before = format!("u8 *dmavet_byte = (u8 *)({}); {flip}", filled(byte));
        add(Class::LateWrite, format!("`{name}`: the first byte comes after it"), before_and_after(&before, flip));
    }
    found
}

/// The call's arguments are taken where it stood, the call is made further down.
fn sunk(source: &Source, site: &Site, statement: Range<usize>, to: usize) -> Vec<(Range<usize>, String)> {
    let text = |range: &Range<usize>| source.text.get(range.clone()).unwrap_or_default();
    let constant = |arg: &str| arg.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let (mut kept, mut args) = (String::new(), Vec::new());
    for (n, range) in site.call.args.iter().enumerate() {
        if constant(text(range)) {
            args.push(text(range).to_owned());
        } else {
            kept += &format!("__auto_type dmavet_{n} = {};", text(range));
            args.push(format!("dmavet_{n}"));
        }
    }
    vec![(statement, kept), (to..to, format!("{}({}); ", site.call.name, args.join(", ")))]
}

/// TO_DEVICE for FROM_DEVICE and the other way round; for both, one of them.
fn opposite(direction: &str) -> String {
    const TO: &str = "DMA_TO_DEVICE";
    const FROM: &str = "DMA_FROM_DEVICE";
    if direction.contains(TO) || direction.contains(FROM) {
        return direction.replace(TO, "\u{0}").replace(FROM, TO).replace('\u{0}', FROM);
    }
    format!("(({direction}) == {TO} ? {FROM} : {TO})")
}

/// The file with a word to the console at the first use of each of `sites`' calls, `dmavet-reached FILE:LINE`.
pub fn announcing(file: &str, source: &Source, table: &Table) -> String {
    let mut edits = Vec::new();
    for site in api::sites(source, table) {
        let span = site.call.span;
        let say = format!(
            "({{ static bool dmavet_said; if (!dmavet_said) {{ dmavet_said = true; printk(KERN_EMERG \"dmavet-reached {file}:{}\\n\"); }} ",
            source.line(span.start)
        );
        edits.push((span.start..span.start, say));
        edits.push((span.end..span.end, "; })".to_owned()));
    }
    edited(&source.text, &edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVER: &str = "
static void ring_unmap(struct ring *ring, int i)
{
	dma_unmap_page(ring->dev, ring->addr[i], ring->len[i],
		       ring->rx ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
}
static int fill(struct ring *ring, enum dma_data_direction dir)
{
	ring->addr[0] = dma_map_single(ring->dev, ring->buf, LEN, dir);
	if (dma_mapping_error(ring->dev, ring->addr[0]))
		return -ENOMEM;
	dma_sync_single_for_cpu(ring->dev, ring->addr[0], LEN, DMA_FROM_DEVICE);
	look(ring);
	ring_unmap(ring, 0);
	kfree(ring);
	return 0;
}
";

    fn all() -> (Source, Vec<Mutant>) {
        let source = Source::new(DRIVER);
        let sources = [("d.c".to_owned(), source)];
        let table = api::table(&sources);
        let [(_, source)] = sources;
        let mutants = mutants("d.c", &source, &table);
        (source, mutants)
    }

    fn applied(change: &str) -> String {
        let (source, mutants) = all();
        let mutant = mutants.iter().find(|m| m.change == change).unwrap_or_else(|| panic!("no {change:?} in {mutants:#?}"));
        let text = mutant.apply(&source);
        assert_eq!(text.lines().count(), DRIVER.lines().count(), "{text}");
        text
    }

    #[test]
    fn every_call_site_has_its_mutants() {
        let (_, mutants) = all();
        let count = |class| mutants.iter().filter(|m| m.class == class).count();
        let counts: Vec<usize> = Class::ALL.into_iter().map(count).collect();
        // Unmap: the API's and the driver's own. Late: the sync and the driver's own.
        assert_eq!(counts, [2, 0, 1, 0, 6, 3, 2, 1, 1, 1]);
        let mut keys: Vec<String> = mutants.iter().map(Mutant::key).collect();
        keys.dedup();
        assert_eq!(keys.len(), mutants.len());
        assert!(mutants.iter().all(|m| m.lines.contains(&m.line)));
    }

    #[test]
    fn calls_go_and_arguments_change() {
        assert!(applied("`ring_unmap` deleted").contains("\t(void)0;\n\tkfree"));
        assert!(applied("`dma_mapping_error` finds nothing").contains("if (0)\n"));
        assert!(applied("`dma_unmap_page`: the other direction").contains("ring->rx ? DMA_TO_DEVICE : DMA_FROM_DEVICE"));
        assert!(applied("`dma_map_single`: the other direction").contains("((dir) == DMA_TO_DEVICE ? DMA_FROM_DEVICE : DMA_TO_DEVICE)"));
        assert!(applied("`dma_map_single`: half of LEN").contains("ring->buf, ((LEN) + 1) / 2, dir"));
    }

    #[test]
    fn a_late_call_has_the_arguments_it_had() {
        let text = applied("`dma_sync_single_for_cpu` at the end of its block");
        assert!(text.contains("__auto_type dmavet_0 = ring->dev;__auto_type dmavet_1 = ring->addr[0];\n"), "{text}");
        assert!(text.contains("kfree(ring);\n\tdma_sync_single_for_cpu(dmavet_0, dmavet_1, LEN, DMA_FROM_DEVICE); return 0;"), "{text}");
    }

    #[test]
    fn an_early_unmap_and_a_late_write_stand_around_the_call() {
        let text = applied("`dma_map_single` undone at once");
        assert!(text.contains("__auto_type dmavet_result = dma_map_single(ring->dev, ring->buf, LEN, dir); if ("), "{text}");
        assert!(text.contains("dma_unmap_single(ring->dev, dmavet_result, LEN, dir); dmavet_result; });"), "{text}");
        assert!(
            applied("`dma_map_single`: the first byte comes after it")
                .contains("u8 *dmavet_byte = (u8 *)(ring->buf); *dmavet_byte ^= 0xff;")
        );
    }
}
