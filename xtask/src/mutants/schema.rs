//! One file with all its changes in it, each behind a question to the switch.

use super::find::{Kind, Site};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

/// A file as it is compiled.
#[derive(Debug, Default)]
pub struct Written {
    pub text: String,
    /// Bytes of `text` that exist because of a change, by the change's number.
    alternatives: Vec<(Range<usize>, u32)>,
    /// Bytes of `text` a site's changes and its original take, with the site's changes.
    sites: Vec<(Range<usize>, Vec<u32>)>,
}

impl Written {
    /// The changes to leave out when the compiler does not like these bytes.
    pub fn blamed(&self, bytes: &Range<usize>) -> Vec<u32> {
        let holds = |range: &Range<usize>| range.start <= bytes.start && bytes.end <= range.end;
        if let Some((_, number)) = self.alternatives.iter().filter(|(range, _)| holds(range)).min_by_key(|(range, _)| range.len()) {
            return vec![*number];
        }
        let site = self.sites.iter().filter(|(range, _)| holds(range)).min_by_key(|(range, _)| range.len());
        site.map(|(_, numbers)| numbers.clone()).unwrap_or_default()
    }
}

/// What is inserted at one place. Ends come before beginnings; of those that begin together the outer is first, of those
/// that end together the inner; of sites with the same bytes the earlier is the outer one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    End { inner_first: Reverse<(usize, usize)> },
    Begin { outer_first: (Reverse<usize>, usize) },
}

/// Writes a file with the numbered changes of its sites. A site is given with the numbers of the changes to write; those
/// without a number are left out.
pub fn write(source: &str, sites: &[(Site, Vec<Option<u32>>)]) -> Written {
    let mut inserts: BTreeMap<(usize, Order), usize> = BTreeMap::new();
    let mut dropped: Vec<Range<usize>> = Vec::new();
    for (index, (site, numbers)) in sites.iter().enumerate() {
        if site.kind == Kind::Constant {
            dropped.push(site.range.clone());
        } else if numbers.iter().any(Option::is_some) {
            let Range { start, end } = site.range;
            inserts.insert((start, Order::Begin { outer_first: (Reverse(end), index) }), index);
            if site.kind == Kind::Expression {
                inserts.insert((end, Order::End { inner_first: Reverse((start, index)) }), index);
            }
        }
    }
    let mut out = Written::default();
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let mut at = 0;
    for ((position, order), index) in inserts {
        copy(source, at..position, &dropped, &mut out.text);
        at = position;
        let Some((site, numbers)) = sites.get(index) else { continue };
        if matches!(order, Order::End { .. }) {
            out.text.push_str("})");
            let start = open.remove(&index).unwrap_or_default();
            out.sites.push((start..out.text.len(), numbers.iter().flatten().copied().collect()));
            continue;
        }
        open.insert(index, out.text.len());
        begin(site, numbers, &mut out);
    }
    copy(source, at..source.len(), &dropped, &mut out.text);
    out
}

fn begin(site: &Site, numbers: &[Option<u32>], out: &mut Written) {
    let start = out.text.len();
    if site.kind == Kind::Expression {
        out.text.push('(');
    }
    for (change, number) in site.changes.iter().zip(numbers) {
        let Some(number) = number else { continue };
        let from = out.text.len();
        out.text += &match site.kind {
            Kind::Expression => format!("if {SWITCH}({number}) {{ {} }} else ", change.text),
            Kind::Body => format!(" if {SWITCH}({number}) {{ return {}; }}", change.text),
            Kind::Arm => format!(" if !{SWITCH}({number})"),
            Kind::Constant => String::new(),
        };
        out.alternatives.push((from..out.text.len(), *number));
    }
    if site.kind == Kind::Expression {
        out.text.push('{');
    } else {
        out.sites.push((start..out.text.len(), numbers.iter().flatten().copied().collect()));
    }
}

/// Copies bytes of the source without the dropped ones.
fn copy(source: &str, range: Range<usize>, dropped: &[Range<usize>], to: &mut String) {
    let mut at = range.start;
    for hole in dropped.iter().filter(|hole| range.start <= hole.start && hole.end <= range.end) {
        to.push_str(source.get(at..hole.start).unwrap_or_default());
        at = hole.end;
    }
    to.push_str(source.get(at..range.end).unwrap_or_default());
}

const SWITCH: &str = "crate::mutants_switch::on";

/// The switch: a module of the copy that knows from the environment which change is on.
///
/// `MUTANT` is a change's number, or `trace`: then the numbers that are asked for are appended to the file `MUTANT_TRACE`.
pub fn switch(changes: usize) -> String {
    format!("const CHANGES: usize = {};\n{}", changes + 1, include_str!("switch.rs.in"))
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use std::collections::BTreeSet;

    fn schema(source: &str) -> String {
        let mut number = 0;
        let numbered = find::sites(source, &BTreeSet::new()).unwrap().into_iter().map(|site| {
            let numbers = site.changes.iter().map(|_| {
                number += 1;
                Some(number)
            });
            let numbers = numbers.collect();
            (site, numbers)
        });
        let text = write(source, &numbered.collect::<Vec<_>>()).text;
        syn::parse_file(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        text.replace("crate::mutants_switch::", "")
    }

    #[test]
    fn changes_nest_and_repeat_only_the_original() {
        assert_eq!(
            schema("fn f(a: u8, b: u8) -> bool { !(a < b) }"),
            "fn f(a: u8, b: u8) -> bool { if on(1) { return true; } if on(2) { return false; } \
             (if on(3) { (a < b) } else {!((if on(4) { (a) == (b) } else if on(5) { (a) > (b) } else if on(6) { (a) <= (b) } else {a < b}))}) }"
        );
    }

    #[test]
    fn operands_that_begin_or_end_together() {
        let text = schema("fn f() { let x = a + b + c; g(x) }");
        assert!(text.contains("(if on(2) { (a + b) - (c) } else if on(3) { (a + b) * (c) } else {(if on(4) { (a) - (b) }"), "{text}");
        let text = schema("fn f() { a += 1; if let Some(x) = y && x == 1 {} }");
        assert!(text.contains("(if on(2) { a -= 1 } else if on(3) { a *= 1 } else {a += 1});"), "{text}");
        assert!(text.contains("if let Some(x) = y && (if on(4) { (x) != (1) } else {x == 1}) {}"), "{text}");
    }

    #[test]
    fn match_arms_and_their_guards() {
        let text = schema("fn f(n: u8) -> T { match n { 1 | 2 => a, m if m > 3 => b, _ => c } }");
        assert!(text.contains("1 | 2 if !on(2) => a"), "{text}");
        assert!(text.contains("m if (if on(3) { true } else if on(4) { false } else {(if on(5) { (m) == (3) }"), "{text}");
        assert!(text.ends_with("_ => c } }"), "{text}");
        let text = schema("fn f(n: bool) -> T { match n { true => a, false => b } }");
        assert!(!text.contains("!on"), "{text}");
    }

    #[test]
    fn constants_tests_and_text_are_left_alone() {
        for source in [
            "const N: usize = 1 + 2;",
            "static N: [u8; 2 * 3] = [0; 2 * 3];",
            "enum E { A = 1 << 3 }",
            "#[cfg(test)] mod tests { fn f() { g() } }",
            "#[test] fn f() { assert!(a == b) }",
            "impl fmt::Display for T { fn fmt(&self) -> R { a + b } }",
            "struct S; impl S { const A: u8 = 1 | 2; }",
            "fn f() {}",
            "fn f() -> bool { true }",
        ] {
            let text = schema(source);
            assert!(text == source || source.ends_with("{ true }"), "{text}");
            assert!(!text.contains("return true"), "{text}");
        }
        assert!(schema("fn f() -> u8 { let a = [0; 1 + 1]; 1 }").contains("[0; 1 + 1]"));
    }

    #[test]
    fn constant_functions_lose_the_word_unless_named() {
        let source = "impl T { pub const fn f(self) -> u8 { self.0 + 1 } }";
        assert!(schema(source).starts_with("impl T { pub  fn f(self) -> u8 { if on(1) { return 0; }"));
        assert!(find::sites(source, &BTreeSet::from(["T::f".to_owned()])).unwrap().is_empty());
    }

    #[test]
    fn the_innermost_change_is_blamed() {
        let source = "fn f() -> bool { a && b == c }";
        let sites: Vec<_> = find::sites(source, &BTreeSet::new()).unwrap();
        let mut numbers = 0..;
        let numbered: Vec<_> = sites
            .into_iter()
            .map(|s| {
                let n = s.changes.iter().map(|_| numbers.next()).collect();
                (s, n)
            })
            .collect();
        let written = write(source, &numbered);
        let place = |text: &str| {
            let start = written.text.find(text).unwrap();
            start..start + text.len()
        };
        assert_eq!(written.blamed(&place("true")), [0]);
        assert_eq!(written.blamed(&place("(a) ||")), [2]);
        assert_eq!(written.blamed(&place("(b) != (c)")), [3]);
        assert_eq!(written.blamed(&place("b == c}")), [3], "what surrounds it is blamed on the smallest site");
        assert!(written.blamed(&(0..2)).is_empty());
    }
}
