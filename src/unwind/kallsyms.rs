//! The kernel's symbol table as it carries it itself, whatever was stripped: the kallsyms tables in `.rodata`.
//!
//! scripts/kallsyms.c writes them without a header, so they are searched: the token table by the ten digits every kernel's
//! symbols use, and everything else by its place relative to that and by agreeing with itself. Layouts, in the order of the file:
//! - to 6.3: offsets, relative base, number, names, markers, (from 6.2 sequence numbers,) token table, token index
//! - 6.4 and later: number, names, markers, token table, token index, offsets, relative base, sequence numbers
//! - lately: the same, without relative base, each offset relative to its own place, aligned to 4 bytes instead of 8
//!
//! Offsets up to 6.14 encode absolute addresses of per-CPU variables as positive numbers (CONFIG_KALLSYMS_ABSOLUTE_PERCPU).

use crate::bytes::{Store, align, i32_at, u16_at, u32_at, u64_at};
use std::collections::HashMap;
use std::ops::Range;

/// Symbols between two markers, a constant of scripts/kallsyms.c.
const STEP: u32 = 256;
/// Symbols a kernel has.
const PLAUSIBLE: Range<u32> = 1000..1 << 22;
/// How far before the token table names may begin.
const NAMES_MAX: usize = 64 << 20;
/// Letters nm(1) has for kinds of symbols.
const KINDS: &[u8] = b"AaBbCcDdGgIiNnPpRrSsTtUuVvWw?-";
/// The most symbols that share one address.
const MAX_ALIASES: u32 = 4096;

/// How an offset of the table becomes an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// Added to the base.
    Relative(u64),
    /// Positive: absolute. Negative: base - 1 - offset.
    PerCpu(u64),
    /// Relative to the place of the offset; the address of the first one.
    Place(u64),
}

impl Coding {
    fn address(self, index: u32, offset: i32) -> u64 {
        match self {
            Self::Relative(base) => base.wrapping_add(u64::from(offset.cast_unsigned())),
            Self::PerCpu(base) if offset < 0 => base.wrapping_sub(1).wrapping_add_signed(-i64::from(offset)),
            Self::PerCpu(_) => u64::from(offset.cast_unsigned()),
            Self::Place(first) => first.wrapping_add(u64::from(index) * 4).wrapping_add_signed(offset.into()),
        }
    }
}

/// A function or variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    pub(crate) start: u64,
    /// The next address that has a symbol, as the kernel counts sizes.
    pub(crate) end: u64,
}

/// The tokens names are made of.
#[derive(Debug)]
struct Tokens {
    table: Vec<u8>,
    /// Where each token is in the table.
    places: Vec<Range<usize>>,
}

impl Tokens {
    fn get(&self, token: u8) -> &[u8] {
        self.places.get(usize::from(token)).and_then(|place| self.table.get(place.clone())).unwrap_or_default()
    }

    /// The name written as `tokens`, with the letter of its kind in front.
    fn expand(&self, tokens: &[u8], name: &mut Vec<u8>) {
        name.clear();
        tokens.iter().for_each(|token| name.extend_from_slice(self.get(*token)));
    }
}

/// Length of a name's head and number of its tokens. One byte, two when the first one's top bit is set (since 6.1).
fn name_head(names: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = *names.get(at)?;
    if first < 0x80 {
        return Some((1, first.into()));
    }
    let second = *names.get(at + 1)?;
    Some((2, usize::from(first & 0x7f) | usize::from(second) << 7))
}

/// The tables found in an image; the large ones stay there.
#[derive(Debug)]
pub(crate) struct Kallsyms {
    count: u32,
    tokens: Tokens,
    /// File offset and length of the names.
    names: (u64, u64),
    /// Where in the names every [`STEP`]th symbol is.
    markers: Vec<u32>,
    /// File offset of the offsets.
    offsets: u64,
    coding: Coding,
    /// Address of every [`STEP`]th symbol.
    index: Vec<u64>,
}

/// The section the tables are searched in.
pub(crate) struct Rodata<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where the guest has it.
    pub(crate) address: u64,
    /// Where the file has it.
    pub(crate) offset: u64,
}

/// What is known of the names before the addresses are.
struct Names {
    count: u32,
    start: usize,
    len: usize,
    number_at: usize,
    markers: Vec<u32>,
}

impl Kallsyms {
    /// Finds the tables, and the addresses of the symbols called `wanted`. `text` is where the kernel's code lies.
    pub(crate) fn find(rodata: &Rodata<'_>, text: &Range<u64>, wanted: &[&'static str]) -> Option<(Self, HashMap<&'static str, u64>)> {
        let bytes = rodata.bytes;
        let digits = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
        let mut from = 0;
        while let Some(at) = find(bytes, digits, from) {
            from = at + 1;
            let Some((table, tokens, end)) = tokens_around(bytes, at) else { continue };
            let Some(names) = find_names(bytes, table, &tokens) else { continue };
            let found = indices_of(bytes, &names, &tokens, wanted);
            for (offsets, coding) in codings(rodata, &names, end) {
                let address = |index: u32| {
                    let at = offsets.checked_add(usize::try_from(index).ok()?.checked_mul(4)?)?;
                    Some(coding.address(index, i32_at(bytes, at)?))
                };
                let Some(index) = index_of(names.count, address) else { continue };
                let known: HashMap<_, _> = found.iter().filter_map(|(name, i)| Some((*name, address(*i)?))).collect();
                if known.get("_text").or_else(|| known.get("_stext")).is_none_or(|at| !text.contains(at)) {
                    continue;
                }
                let file = |at: usize| rodata.offset.saturating_add(at as u64);
                let tables = Self {
                    count: names.count,
                    tokens,
                    names: (file(names.start), names.len as u64),
                    markers: names.markers,
                    offsets: file(offsets),
                    coding,
                    index,
                };
                return Some((tables, known));
            }
        }
        None
    }

    /// Number of symbols.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// The symbol `address` lies in: of several at one address the first, as the kernel does.
    pub(crate) fn lookup(&self, store: &Store, address: u64) -> Option<Symbol> {
        let block = u32::try_from(self.index.partition_point(|a| *a <= address).checked_sub(1)?).ok()?;
        let starts = self.addresses(store, block * STEP)?;
        let mut at = u32::try_from(starts.partition_point(|a| *a <= address).checked_sub(1)?).ok()? + block * STEP;
        let start = self.address(store, at)?;
        let lowest = at.saturating_sub(MAX_ALIASES);
        let mut next = at + 1;
        while at > lowest && self.address(store, at - 1)? == start {
            at -= 1;
        }
        let highest = next.saturating_add(MAX_ALIASES).min(self.count);
        while next < highest && self.address(store, next)? <= start {
            next += 1;
        }
        let end = if next < self.count { self.address(store, next)? } else { start };
        Some(Symbol { name: self.name(store, at)?, start, end })
    }

    /// Address of the first symbol called `name`.
    pub(crate) fn address_of(&self, store: &Store, name: &str) -> Option<u64> {
        let names = store.read(self.names.0, usize::try_from(self.names.1).ok()?)?;
        let (mut at, mut expanded) = (0, Vec::new());
        for i in 0..self.count {
            let (head, len) = name_head(&names, at)?;
            self.tokens.expand(names.get(at + head..at + head + len)?, &mut expanded);
            if expanded.get(1..) == Some(name.as_bytes()) {
                return self.address(store, i);
            }
            at += head + len;
        }
        None
    }

    /// Addresses of the symbols from `first` to the next marker.
    fn addresses(&self, store: &Store, first: u32) -> Option<Vec<u64>> {
        let count = self.count.checked_sub(first)?.min(STEP);
        let bytes = store.read(self.offsets + u64::from(first) * 4, usize::try_from(count).ok()? * 4)?;
        let offsets = bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
        Some((first..).zip(offsets).map(|(i, offset)| self.coding.address(i, offset)).collect())
    }

    fn address(&self, store: &Store, index: u32) -> Option<u64> {
        let bytes = store.read(self.offsets + u64::from(index) * 4, 4)?;
        Some(self.coding.address(index, i32_at(&bytes, 0)?))
    }

    fn name(&self, store: &Store, index: u32) -> Option<String> {
        let block = usize::try_from(index / STEP).ok()?;
        let start = u64::from(*self.markers.get(block)?);
        let end = self.markers.get(block + 1).map_or(self.names.1, |m| u64::from(*m));
        let names = store.read(self.names.0 + start, usize::try_from(end.checked_sub(start)?).ok()?)?;
        let mut at = 0;
        for _ in 0..index % STEP {
            let (head, len) = name_head(&names, at)?;
            at += head + len;
        }
        let (head, len) = name_head(&names, at)?;
        let mut name = Vec::new();
        self.tokens.expand(names.get(at + head..at + head + len)?, &mut name);
        Some(String::from_utf8_lossy(name.get(1..)?).into_owned())
    }
}

fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(needle.len()).position(|w| w.first() == needle.first() && w == needle).map(|at| at + from)
}

/// The token table that has its ten digits at `digits`: its start, the tokens, and the end of the index behind it.
fn tokens_around(bytes: &[u8], digits: usize) -> Option<(usize, Tokens, usize)> {
    let mut start = digits;
    for _ in 0..b'0' {
        let before = bytes.get(..start.checked_sub(1)?)?;
        start = before.iter().rposition(|b| *b == 0)? + 1;
    }
    // What is before the first token ends in the top byte of a small number, so the way back ended at the right place.
    let mut places = Vec::with_capacity(256);
    let mut end = start;
    for _ in 0..256 {
        let rest = bytes.get(end..)?;
        let len = rest.iter().take(512).position(|b| *b == 0)?;
        if !rest.get(..len)?.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        places.push(end - start..end - start + len);
        end += len + 1;
    }
    let indexed = |at: usize, token: usize, place: &Range<usize>| u16_at(bytes, at + token * 2).map(usize::from) == Some(place.start);
    let index_at =
        [align(end, 4), align(end, 8)].into_iter().find(|at| places.iter().enumerate().all(|(token, place)| indexed(*at, token, place)))?;
    Some((start, Tokens { table: bytes.get(start..end)?.to_vec(), places }, index_at + 512))
}

/// The number of symbols and their names, somewhere before the token table.
fn find_names(bytes: &[u8], table: usize, tokens: &Tokens) -> Option<Names> {
    let first = table.saturating_sub(NAMES_MAX);
    let mut number_at = table.checked_sub(table % 4)?;
    while number_at >= first + 4 {
        number_at -= 4;
        let count = u32_at(bytes, number_at)?;
        if !PLAUSIBLE.contains(&count) || usize::try_from(count).ok()? > table - number_at || !markers_fit(bytes, table, count) {
            continue;
        }
        let found = [number_at + 4, align(number_at + 4, 8)].into_iter().find_map(|start| walk(bytes.get(..table)?, count, start, tokens));
        if let Some((start, len, markers)) = found {
            return Some(Names { count, start, len, number_at, markers });
        }
    }
    None
}

/// Whether markers of `count` symbols can end at the token table, or at the sequence numbers before it. Without this look nearly all
/// of the names would be gone through for every false number among them.
fn markers_fit(bytes: &[u8], table: usize, count: u32) -> bool {
    let (Ok(size), Ok(numbers)) = (usize::try_from(count.div_ceil(STEP) * 4), usize::try_from(count).map(|n| n * 3)) else { return false };
    let places = [align(size, 4), align(size, 8), align(size, 8) + align(numbers, 8)];
    places.into_iter().filter_map(|before| table.checked_sub(before)).any(|at| {
        // Names have a few characters each, in fewer tokens.
        u32_at(bytes, at) == Some(0) && u32_at(bytes, at + 4).is_some_and(|second| (2 * STEP..300 * STEP).contains(&second))
    })
}

/// Goes through `count` names from `start` on: they must be names, and the markers behind them must agree.
fn walk(bytes: &[u8], count: u32, start: usize, tokens: &Tokens) -> Option<(usize, usize, Vec<u32>)> {
    let mut at = start;
    let mut markers = Vec::new();
    for i in 0..count {
        if i.is_multiple_of(STEP) {
            markers.push(u32::try_from(at - start).ok()?);
        }
        let (head, len) = name_head(bytes, at)?;
        let kind = tokens.get(*bytes.get(at + head)?).first()?;
        if len == 0 || !KINDS.contains(kind) {
            return None;
        }
        at += head + len;
    }
    let agree = |table: usize| markers.iter().zip(0..).all(|(m, i)| u32_at(bytes, table + i * 4) == Some(*m));
    ([align(at, 4), align(at, 8)].into_iter().any(agree)).then_some((start, at - start, markers))
}

/// Numbers of the symbols called `wanted`.
fn indices_of(bytes: &[u8], names: &Names, tokens: &Tokens, wanted: &[&'static str]) -> HashMap<&'static str, u32> {
    let mut found = HashMap::new();
    let mut at = names.start;
    let mut name = Vec::new();
    for i in 0..names.count {
        let Some((head, len)) = name_head(bytes, at) else { break };
        tokens.expand(bytes.get(at + head..at + head + len).unwrap_or_default(), &mut name);
        if let Some(wanted) = wanted.iter().find(|w| name.get(1..) == Some(w.as_bytes())) {
            found.entry(*wanted).or_insert(i);
        }
        at += head + len;
    }
    found
}

/// Places and codings the offsets may have.
fn codings(rodata: &Rodata<'_>, names: &Names, index_end: usize) -> Vec<(usize, Coding)> {
    let size = names.count as usize * 4;
    let mut found = Vec::new();
    for behind in [align(index_end, 8), align(index_end, 4)] {
        if let Some(base) = u64_at(rodata.bytes, align(behind + size, 8)) {
            found.extend([(behind, Coding::PerCpu(base)), (behind, Coding::Relative(base))]);
        }
        found.push((behind, Coding::Place(rodata.address.wrapping_add(behind as u64))));
    }
    let base_at = names.number_at.checked_sub(8);
    let before = base_at.and_then(|at| at.checked_sub(align(size, 8)));
    if let (Some(before), Some(base)) = (before, base_at.and_then(|at| u64_at(rodata.bytes, at))) {
        found.extend([(before, Coding::PerCpu(base)), (before, Coding::Relative(base))]);
    }
    found
}

/// Address of every [`STEP`]th symbol, provided that the addresses ascend.
fn index_of(count: u32, address: impl Fn(u32) -> Option<u64>) -> Option<Vec<u64>> {
    let mut index = Vec::new();
    let mut last = 0;
    for i in 0..count {
        let at = address(i)?;
        if at < last {
            return None;
        }
        last = at;
        if i.is_multiple_of(STEP) {
            index.push(at);
        }
    }
    Some(index)
}

#[cfg(test)]
pub(crate) mod tests;
