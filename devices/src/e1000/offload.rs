//! What the transmitter does to a packet on its way out: checksum insertion and TCP segmentation (SDM sections 3.5 and 3.6).

use super::spec::{Context, MOST_SEGMENTS, MOST_TX_FRAME};

/// What the first descriptor of a packet asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// TCP segmentation.
    pub(super) segment: bool,
    /// Insert the IP checksum.
    pub(super) ip_checksum: bool,
    /// Insert the TCP or UDP checksum.
    pub(super) tcp_checksum: bool,
}

/// TCP flags that belong to the last segment only: FIN and PSH (RFC 9293 section 3.1).
const LAST_SEGMENT: u8 = 0x09;

/// The one's complement sum of RFC 1071, folded to 16 bits.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    });
    fold(words.sum())
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}

fn get<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(to) = frame.get_mut(at..end) {
        to.copy_from_slice(bytes);
    }
}

/// Changes a big-endian 16-bit field; what lies outside the frame is left alone.
fn change16(frame: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(bytes) = get(frame, at) {
        put(frame, at, &change(u16::from_be_bytes(bytes)).to_be_bytes());
    }
}

/// Puts the checksum of the bytes from `start` to `end` (0: to the end of the frame) into the field at `field`, whose contents, the sum of
/// a pseudo-header, take part. A sum of nothing, or a field outside the frame, does nothing.
pub(super) fn insert_checksum(frame: &mut [u8], start: u8, field: u8, end: u16) {
    let past = if end == 0 { frame.len() } else { frame.len().min(usize::from(end) + 1) };
    if let Some(range) = frame.get(usize::from(start)..past) {
        let checksum = !sum(range);
        change16(frame, field.into(), |_| checksum);
    }
}

fn finish(frame: &mut [u8], options: Options, context: &Context) {
    if options.ip_checksum {
        insert_checksum(frame, context.ip_start, context.ip_field, context.ip_end);
    }
    if options.tcp_checksum {
        insert_checksum(frame, context.tcp_start, context.tcp_field, context.tcp_end);
    }
}

/// The frames a packet becomes. `None` when it cannot be segmented as its context says.
pub(super) fn frames(mut packet: Vec<u8>, options: Options, context: &Context) -> Option<Vec<Vec<u8>>> {
    if !options.segment {
        finish(&mut packet, options, context);
        return Some(vec![packet]);
    }
    let (header, mss) = (usize::from(context.header), usize::from(context.mss));
    let (header, payload) = packet.split_at_checked(header)?;
    let count = payload.len().checked_div(mss)? + usize::from(!payload.len().is_multiple_of(mss));
    if header.is_empty() || count == 0 || count > MOST_SEGMENTS || header.len() + mss > MOST_TX_FRAME {
        return None;
    }
    let (ip, tcp) = (usize::from(context.ip_start), usize::from(context.tcp_start));
    let segment = |(number, payload): (usize, &[u8])| {
        let mut frame = [header, payload].concat();
        let (len, last) = (frame.len(), number + 1 == count);
        // No frame is longer than MOST_TX_FRAME, and no packet has more than MOST_SEGMENTS of them.
        let from = |start: usize| u16::try_from(len.saturating_sub(start)).unwrap_or_default();
        let number = u16::try_from(number).unwrap_or_default();
        if context.ipv4 {
            change16(&mut frame, ip + 2, |_| from(ip));
            change16(&mut frame, ip + 4, |id| id.wrapping_add(number));
        } else {
            change16(&mut frame, ip + 4, |_| from(ip + 40));
        }
        if context.tcp {
            if let Some(sequence) = get(&frame, tcp + 4) {
                let sequence = u32::from_be_bytes(sequence).wrapping_add(u32::from(number) * u32::from(context.mss));
                put(&mut frame, tcp + 4, &sequence.to_be_bytes());
            }
            if let Some(flags) = frame.get_mut(tcp + 13).filter(|_| !last) {
                *flags &= !LAST_SEGMENT;
            }
        }
        if options.tcp_checksum {
            // The driver's pseudo-header has no length in it.
            change16(&mut frame, context.tcp_field.into(), |seed| fold(u64::from(seed) + u64::from(from(tcp))));
        }
        finish(&mut frame, options, context);
        frame
    };
    Some(payload.chunks(mss).enumerate().map(segment).collect())
}
