//! Finds the end of a job's output within the stream itself.
//!
//! Ports are independent queues, so an "end" on the control port may overtake the last bytes of stdout. The end of a job is therefore
//! marked in each stream by a line with a random number no job can know by accident.

/// Cuts a byte stream at markers.
#[derive(Debug)]
pub(super) struct Splitter {
    marker: Vec<u8>,
    held: Vec<u8>,
}

/// A piece of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Output of the job.
    Bytes(Vec<u8>),
    /// The job of this index wrote all it will write.
    End(usize),
}

/// Digits a job index may have; more is not a marker.
const DIGITS: usize = 9;

impl Splitter {
    /// `marker` is followed by a decimal job index and a line feed.
    pub(super) fn new(marker: &str) -> Self {
        Self { marker: marker.as_bytes().to_vec(), held: Vec::new() }
    }

    /// Takes the next bytes; holds back only what may be the beginning of a marker.
    pub(super) fn push(&mut self, data: &[u8]) -> Vec<Piece> {
        self.held.extend_from_slice(data);
        let mut pieces = Vec::new();
        loop {
            match self.find() {
                Found::Whole { at, length, job } => {
                    let mut rest = self.held.split_off(at);
                    rest.drain(..length);
                    bytes(&mut pieces, std::mem::replace(&mut self.held, rest));
                    pieces.push(Piece::End(job));
                }
                Found::Begun { at } => {
                    let rest = self.held.split_off(at);
                    bytes(&mut pieces, std::mem::replace(&mut self.held, rest));
                    return pieces;
                }
            }
        }
    }

    /// What was held back when the stream ended.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn find(&self) -> Found {
        let mut at = 0;
        while let Some(rest) = self.held.get(at..).filter(|r| !r.is_empty()) {
            let same = rest.len().min(self.marker.len());
            if rest.get(..same) == self.marker.get(..same) {
                let digits = rest.get(self.marker.len()..).unwrap_or_default();
                let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
                let number = digits.get(..n).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| d.parse().ok());
                match (digits.get(n), number) {
                    (Some(b'\n'), Some(job)) if n <= DIGITS => return Found::Whole { at, length: self.marker.len() + n + 1, job },
                    (None, _) if n <= DIGITS => return Found::Begun { at },
                    _ => {}
                }
            }
            at += 1;
        }
        Found::Begun { at: self.held.len() }
    }
}

enum Found {
    Whole { at: usize, length: usize, job: usize },
    Begun { at: usize },
}

fn bytes(pieces: &mut Vec<Piece>, data: Vec<u8>) {
    if !data.is_empty() {
        pieces.push(Piece::Bytes(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> (Vec<u8>, Vec<usize>, Vec<u8>) {
        let mut splitter = Splitter::new("\u{1}mark:");
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for chunk in chunks {
            for piece in splitter.push(chunk) {
                match piece {
                    Piece::Bytes(b) => out.extend(b),
                    Piece::End(job) => ends.push(job),
                }
            }
        }
        (out, ends, splitter.finish())
    }

    #[test]
    fn every_way_of_cutting_gives_the_same() {
        let stream = b"hello\x01mar no\n\x01mark:x\x01mark:0\nworld\x01mark:12\n";
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            let (out, ends, held) = all(&[a, b]);
            assert_eq!(out, b"hello\x01mar no\n\x01mark:xworld", "cut at {cut}");
            assert_eq!(ends, [0, 12]);
            assert!(held.is_empty());
        }
    }

    #[test]
    fn output_is_not_held_back_without_reason() {
        let mut splitter = Splitter::new("\u{1}mark:");
        assert_eq!(splitter.push(b"progress"), [Piece::Bytes(b"progress".to_vec())]);
        assert_eq!(splitter.push(b"x\x01ma"), [Piece::Bytes(b"x".to_vec())]);
        assert_eq!(splitter.finish(), b"\x01ma");
    }

    #[test]
    fn an_endless_number_is_not_a_marker() {
        let (out, ends, _) = all(&[b"\x01mark:11111111111111\n"]);
        assert!(ends.is_empty());
        assert_eq!(out, b"\x01mark:11111111111111\n");
    }
}
