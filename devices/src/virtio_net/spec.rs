//! Layouts of virtio-net (virtio 1.2 section 5.1). No logic.

use crate::peer::GUEST_MAC;
use virtio_bindings::virtio_net as bits;

/// receiveq1 and transmitq1.
pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const QUEUES: [u16; 2] = [256, 256];

pub(super) const MERGEABLE: u64 = 1 << bits::VIRTIO_NET_F_MRG_RXBUF;
pub(super) const FEATURES: u64 = 1 << bits::VIRTIO_NET_F_MAC | 1 << bits::VIRTIO_NET_F_STATUS;

/// virtio_net_hdr with num_buffers (section 5.1.6): always 12 bytes with VIRTIO_F_VERSION_1.
pub(super) const HEADER: usize = 12;
const HEADER_NUM_BUFFERS: usize = 10;

/// struct virtio_net_config as long as the features offered need it: mac, status.
pub(super) const fn config() -> [u8; 8] {
    let [a, b, c, d, e, f] = GUEST_MAC;
    let [up, high, ..] = bits::VIRTIO_NET_S_LINK_UP.to_le_bytes();
    [a, b, c, d, e, f, up, high]
}

/// The header of a received frame that lies in `buffers` buffers: no checksum, no segmentation.
pub(super) fn header(buffers: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header.iter_mut().skip(HEADER_NUM_BUFFERS).zip(buffers.to_le_bytes()).for_each(|(to, from)| *to = from);
    header
}
