//! Text from a guest, made fit for a report.

/// Text up to the first NUL or the end, every byte outside printable ASCII replaced: terminals and XML see no control
/// characters of a guest's choosing. Tabs and line feeds become spaces.
pub(crate) fn clean(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take_while(|b| **b != 0)
        .map(|b| match b {
            0x20..=0x7e => char::from(*b),
            b'\t' | b'\n' | b'\r' => ' ',
            _ => '?',
        })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// A symbol as `%pB` prints it; empty where the kernel knew no name and printed the address.
pub(crate) fn symbol(bytes: &[u8]) -> String {
    let text = clean(bytes);
    if text.starts_with("0x") { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_travel() {
        assert_eq!(clean(b"a\x1b[31mb\x7f\xff\0rest"), "a?[31mb??");
        assert_eq!(clean(b"one\ntwo\n"), "one two");
        assert_eq!(clean(b""), "");
    }

    #[test]
    fn a_bare_address_is_no_symbol() {
        assert_eq!(symbol(b"0xffffffffc0001234\0"), "");
        assert_eq!(symbol(b"probe+0x12/0x40 [ncdma]\0\0"), "probe+0x12/0x40 [ncdma]");
    }
}
