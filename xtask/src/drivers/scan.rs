//! Just enough reading of C to find functions, the calls in them, and where a statement begins and its block ends.

use std::ops::Range;

/// A source file, with a copy of the same length in which comments, literals and directives are blanks.
#[derive(Debug)]
pub struct Source {
    pub text: String,
    code: Vec<u8>,
    pub functions: Vec<Function>,
}

/// A function's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Its parameters as written.
    pub parameters: Vec<String>,
    /// Its body without the braces, bytes of the file.
    pub body: Range<usize>,
}

/// A call in a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// Name to closing parenthesis, bytes of the file.
    pub span: Range<usize>,
    /// Arguments, bytes of the file.
    pub args: Vec<Range<usize>>,
}

impl Source {
    pub fn new(text: &str) -> Self {
        let code = blanked(text.as_bytes());
        let functions = functions(&code);
        Self { text: text.to_owned(), code, functions }
    }

    /// Line of a byte, from 1.
    pub fn line(&self, at: usize) -> u32 {
        let lines = self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        u32::try_from(lines + 1).unwrap_or(u32::MAX)
    }

    /// The text of `range`, white space drawn together.
    pub fn said(&self, range: &Range<usize>) -> String {
        self.text.get(range.clone()).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The calls in a function, in the order they are written; one within another's arguments comes after it.
    pub fn calls(&self, function: &Function) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut at = function.body.start;
        while at < function.body.end {
            let Some(word) = word_at(&self.code, at) else {
                at += 1;
                continue;
            };
            let name = String::from_utf8_lossy(&self.code[word.clone()]).into_owned();
            let open = skip_blanks(&self.code, word.end);
            if self.code.get(open) == Some(&b'(')
                && !CONTROL.contains(&name.as_str())
                && let Some(close) = matching(&self.code, open)
            {
                calls.push(Call { name, span: word.start..close + 1, args: split(&self.code, open + 1..close) });
            }
            at = word.end;
        }
        calls
    }

    /// Whether the call is all of a statement, its value unused.
    pub fn is_statement(&self, call: &Call) -> bool {
        let after = self.code.get(skip_blanks(&self.code, call.span.end)) == Some(&b';');
        let before = before(&self.code, call.span.start);
        let starts = match before.map(|at| self.code[at]) {
            Some(b';' | b'{' | b'}' | b')' | b':') => true,
            Some(_) => before.is_some_and(|at| ends_with_word(&self.code, at, &["else", "do"])),
            None => false,
        };
        after && starts
    }

    /// What stands before the braces around `at` in a function, innermost first: the conditions it depends on.
    pub fn heads(&self, function: &Function, at: usize) -> Vec<String> {
        let (mut heads, mut depth) = (Vec::new(), 0_u32);
        for brace in (function.body.start..at).rev() {
            match self.code[brace] {
                b'}' => depth += 1,
                b'{' if depth > 0 => depth -= 1,
                b'{' => {
                    let start = self.code[..brace].iter().rposition(|b| matches!(b, b';' | b'{' | b'}')).map_or(0, |at| at + 1);
                    heads.push(self.said(&(start.max(function.body.start)..brace)));
                }
                _ => {}
            }
        }
        heads
    }

    /// The call with its semicolon, when it is a statement in a block and no branch's only one.
    pub fn in_block(&self, call: &Call) -> Option<Range<usize>> {
        let before = self.code[before(&self.code, call.span.start)?];
        (self.is_statement(call) && matches!(before, b';' | b'{' | b'}'))
            .then(|| call.span.start..skip_blanks(&self.code, call.span.end) + 1)
    }

    /// How far down in its block a statement that ends at `from` can go: to the next jump, label or the block's end. `None` if it is there.
    pub fn furthest(&self, from: usize) -> Option<usize> {
        let (mut at, mut depth, mut fresh) = (from, 0_u32, true);
        let mut passed = false;
        loop {
            match *self.code.get(at)? {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' if depth == 0 => return passed.then_some(at),
                b'}' | b')' | b']' => depth -= 1,
                byte if byte.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                _ if depth == 0 && fresh && self.stops(at) => return passed.then_some(at),
                _ => {}
            }
            fresh = depth == 0 && matches!(self.code[at], b';' | b'}');
            passed = true;
            at = match word_at(&self.code, at) {
                Some(word) => word.end,
                None => at + 1,
            };
        }
    }

    /// Whether the statement at `at` leaves the block or can be jumped to.
    fn stops(&self, at: usize) -> bool {
        let Some(word) = word_at(&self.code, at) else { return false };
        let text = &self.code[word.clone()];
        [&b"return"[..], b"goto", b"break", b"continue", b"case", b"default"].contains(&text)
            || (self.code.get(word.end) == Some(&b':') && self.code.get(word.end + 1) != Some(&b':'))
    }

    /// Whether the function has a loop.
    pub fn loops(&self, function: &Function) -> bool {
        let mut at = function.body.start;
        while at < function.body.end {
            let Some(word) = word_at(&self.code, at) else {
                at += 1;
                continue;
            };
            if [&b"for"[..], b"while"].contains(&&self.code[word.clone()]) || self.code[word.clone()].starts_with(b"for_each") {
                return true;
            }
            at = word.end;
        }
        false
    }
}

/// Words before a parenthesis that are no function's name.
const CONTROL: [&str; 9] = ["if", "for", "while", "switch", "return", "sizeof", "typeof", "defined", "__attribute__"];

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The word that begins at `at`.
fn word_at(code: &[u8], at: usize) -> Option<Range<usize>> {
    let first = *code.get(at)?;
    let begins = is_word(first) && (at == 0 || !is_word(code[at - 1]));
    let end = code[at..].iter().position(|b| !is_word(*b)).map_or(code.len(), |len| at + len);
    begins.then_some(at..end)
}

fn skip_blanks(code: &[u8], from: usize) -> usize {
    code.get(from..).and_then(|rest| rest.iter().position(|b| !b.is_ascii_whitespace())).map_or(code.len(), |len| from + len)
}

/// The last byte before `at` that is no blank.
fn before(code: &[u8], at: usize) -> Option<usize> {
    code.get(..at)?.iter().rposition(|b| !b.is_ascii_whitespace())
}

fn ends_with_word(code: &[u8], last: usize, words: &[&str]) -> bool {
    let start = code[..last].iter().rposition(|b| !is_word(*b)).map_or(0, |at| at + 1);
    words.iter().any(|word| code[start..=last] == *word.as_bytes())
}

/// The parenthesis that closes the one at `open`.
fn matching(code: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Splits at commas outside parentheses; nothing for an empty list.
fn split(code: &[u8], list: Range<usize>) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), list.start, 0_i32);
    for at in list.clone() {
        match code[at] {
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(start..list.end);
    let trimmed = parts.into_iter().map(|part| {
        let begin = skip_blanks(code, part.start).min(part.end);
        let end = before(code, part.end).map_or(begin, |last| (last + 1).max(begin));
        begin..end
    });
    let parts: Vec<Range<usize>> = trimmed.collect();
    if parts.len() == 1 && parts[0].is_empty() { Vec::new() } else { parts }
}

/// Comments, literals and directives as blanks, line ends kept.
fn blanked(text: &[u8]) -> Vec<u8> {
    let mut code = text.to_vec();
    let mut at = 0;
    let mut line_start = true;
    while at < text.len() {
        let rest = &text[at..];
        let end = if rest.starts_with(b"/*") {
            find(text, at + 2, b"*/").map_or(text.len(), |end| end + 2)
        } else if rest.starts_with(b"//") {
            find(text, at, b"\n").unwrap_or(text.len())
        } else if rest[0] == b'"' || rest[0] == b'\'' {
            literal_end(text, at)
        } else if rest[0] == b'#' && line_start {
            directive_end(text, at)
        } else {
            line_start = rest[0] == b'\n' || (line_start && rest[0].is_ascii_whitespace());
            at += 1;
            continue;
        };
        // A literal is an operand: something has to stand there.
        let fill = if rest[0] == b'"' || rest[0] == b'\'' { b'0' } else { b' ' };
        code[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = fill);
        at = end;
    }
    code
}

fn find(text: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    text.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| from + at)
}

fn literal_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != text[start] && text[at] != b'\n' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn directive_end(text: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        match find(text, at, b"\n") {
            None => return text.len(),
            Some(end) if text[..end].ends_with(b"\\") => at = end + 1,
            Some(end) => return end,
        }
    }
}

/// Definitions at the top level: `name(...) {`.
fn functions(code: &[u8]) -> Vec<Function> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if code[at] != b'{' {
            at += 1;
            continue;
        }
        let Some(close) = matching(code, at) else { break };
        if let Some((name, parameters)) = head(code, at) {
            found.push(Function { name, parameters, body: at + 1..close });
        }
        at = close + 1;
    }
    found
}

/// Name and parameters of the function whose body opens at `open`.
fn head(code: &[u8], open: usize) -> Option<(String, Vec<String>)> {
    let close = before(code, open).filter(|at| code[*at] == b')')?;
    let mut depth = 0_u32;
    let mut at = close;
    loop {
        match code[at] {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        at = at.checked_sub(1)?;
    }
    let last = before(code, at).filter(|at| is_word(code[*at]))?;
    let first = code[..last].iter().rposition(|b| !is_word(*b)).map_or(0, |at| at + 1);
    let text = |range: Range<usize>| String::from_utf8_lossy(&code[range]).split_whitespace().collect::<Vec<_>>().join(" ");
    Some((text(first..last + 1), split(code, at + 1..close).into_iter().map(text).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
#define SKIP(x) \
	do { skip(x); } while (0)
struct ring { int (*notify)(struct ring *); };
static const struct ops ops = { .map = map_it };

/* in_a_comment(1); */
static int one(struct ring *ring, const char *text)
{
	int err = check(first(ring), "a, \"b\")", ',');

	if (err)
		unmap(ring, err); // unmap(2)
	else
		finish(ring);
	unmap(ring, (err ? 1 : 2));
	err = 3;
	for (;;)
		touch(ring);
out:
	return err;
}
int two(void)
{
	last();
}
"#;

    fn calls(name: &str) -> (Source, Vec<Call>) {
        let source = Source::new(TEXT);
        let function = source.functions.iter().find(|f| f.name == name).unwrap().clone();
        let calls = source.calls(&function);
        (source, calls)
    }

    #[test]
    fn functions_and_calls_are_found() {
        let (source, calls) = calls("one");
        assert_eq!(source.functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(source.functions[0].parameters, ["struct ring *ring", "const char *text"]);
        assert_eq!(calls.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["check", "first", "unmap", "finish", "unmap", "touch"]);
        assert_eq!(calls[0].args.len(), 3);
        assert_eq!(source.said(&calls[4].args[1]), "(err ? 1 : 2)");
        assert_eq!(source.line(calls[2].span.start), 13);
        assert!(source.loops(&source.functions[0]));
        assert!(!source.loops(&source.functions[1]));
    }

    #[test]
    fn statements_are_told_from_values() {
        let (source, calls) = calls("one");
        assert_eq!(calls.iter().map(|c| source.is_statement(c)).collect::<Vec<_>>(), [false, false, true, true, true, true]);
        assert_eq!(calls.iter().filter(|c| source.in_block(c).is_some()).count(), 1);
    }

    #[test]
    fn a_call_knows_what_it_depends_on() {
        let source = Source::new(
            "void f(void)\n{\n\tif (a(1)) {\n\t\tx = 1;\n\t\tif (b) {\n\t\t\tc();\n\t\t} else {\n\t\t\tcall();\n\t\t}\n\t}\n}\n",
        );
        let function = &source.functions[0];
        let calls = source.calls(function);
        let heads = |name: &str| source.heads(function, calls.iter().find(|call| call.name == name).unwrap().span.start);
        assert_eq!(heads("c"), ["if (b)", "if (a(1))"]);
        assert_eq!(heads("call"), ["else", "if (a(1))"]);
        assert!(heads("a").is_empty());
    }

    #[test]
    fn a_statement_sinks_to_the_next_label_or_the_end() {
        let (source, calls) = calls("one");
        let whole = source.in_block(&calls[4]).unwrap();
        let to = source.furthest(whole.end).unwrap();
        assert!(source.text[to..].starts_with("out:"));
        let (source, calls) = self::calls("two");
        assert_eq!(source.furthest(source.in_block(&calls[0]).unwrap().end), None);
    }
}
