//! Registers and layouts of the 82540EM (SDM chapters 3, 5 and 13). No logic beyond taking words apart.

use crate::pci::{BarSpec, Identity};
use crate::peer::GUEST_MAC;

/// PRO/1000 MT Desktop Adapter: vendor, device, class (network controller, Ethernet), revision and subsystem.
pub(super) const IDENTITY: Identity =
    Identity { vendor: 0x8086, device: 0x100e, class: 0x02_00_00, revision: 2, subsystem_vendor: 0x8086, subsystem: 0x001e };

/// The registers in memory, and a window to them in I/O space (SDM section 4.6.1).
pub(super) const MEMORY_BAR: usize = 0;
pub(super) const IO_BAR: usize = 2;
pub(super) const BARS: [BarSpec; 2] = [BarSpec::memory32(MEMORY_BAR, 0x2_0000), BarSpec::io(IO_BAR, 64)];
/// IOADDR and IODATA, in the I/O BAR (SDM section 13.3).
pub(super) const IO_ADDRESS: u64 = 0;
pub(super) const IO_DATA: u64 = 4;

/// A register. All are 32 bits wide and are accessed as such (SDM section 13.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Ctrl,
    Status,
    Eecd,
    Eerd,
    Mdic,
    Icr,
    Ics,
    Ims,
    Imc,
    Rctl,
    Tctl,
    Rx(RingRegister),
    Tx(RingRegister),
    /// By index, as in [`statistic`].
    Statistic(usize),
    /// A dword of the multicast table array.
    Multicast(usize),
    /// A dword of the receive addresses.
    Address(usize),
    /// A dword of the VLAN filter table array.
    Vlan(usize),
    /// One of [`PLAIN`], by offset.
    Plain(u64),
}

/// A register of a descriptor ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingRegister {
    BaseLow,
    BaseHigh,
    Len,
    Head,
    Tail,
}

/// VLAN Ether Type: the one of the plain registers that is looked at.
pub(super) const VET: u64 = 0x0038;

const STATISTICS: u64 = 0x4000;
const MULTICAST: u64 = 0x5200;
const ADDRESSES: u64 = 0x5400;
const VLANS: u64 = 0x5600;
/// Entries of the multicast and of the VLAN table, and dwords of the 16 receive addresses.
pub(super) const TABLE: usize = 128;
pub(super) const ADDRESS_DWORDS: usize = 32;

/// The register at `offset` in the memory BAR.
pub(super) fn register(offset: u64) -> Option<Register> {
    let array = |base: u64, count: usize| {
        let index = usize::try_from(offset.checked_sub(base)? / 4).ok()?;
        (index < count).then_some(index)
    };
    Some(match offset {
        _ if !offset.is_multiple_of(4) => return None,
        // The second one is a duplicate.
        0x0000 | 0x0004 => Register::Ctrl,
        0x0008 => Register::Status,
        0x0010 => Register::Eecd,
        0x0014 => Register::Eerd,
        0x0020 => Register::Mdic,
        0x00c0 => Register::Icr,
        0x00c8 => Register::Ics,
        0x00d0 => Register::Ims,
        0x00d8 => Register::Imc,
        0x0100 => Register::Rctl,
        0x0400 => Register::Tctl,
        0x2800 => Register::Rx(RingRegister::BaseLow),
        0x2804 => Register::Rx(RingRegister::BaseHigh),
        0x2808 => Register::Rx(RingRegister::Len),
        0x2810 => Register::Rx(RingRegister::Head),
        0x2818 => Register::Rx(RingRegister::Tail),
        0x3800 => Register::Tx(RingRegister::BaseLow),
        0x3804 => Register::Tx(RingRegister::BaseHigh),
        0x3808 => Register::Tx(RingRegister::Len),
        0x3810 => Register::Tx(RingRegister::Head),
        0x3818 => Register::Tx(RingRegister::Tail),
        _ => {
            let statistic = array(STATISTICS, statistic::COUNT).map(Register::Statistic);
            let tables = || array(MULTICAST, TABLE).map(Register::Multicast).or_else(|| array(VLANS, TABLE).map(Register::Vlan));
            let address = || array(ADDRESSES, ADDRESS_DWORDS).map(Register::Address);
            let plain = || PLAIN.iter().any(|(plain, _)| *plain == offset).then_some(Register::Plain(offset));
            return statistic.or_else(tables).or_else(address).or_else(plain);
        }
    })
}

/// Registers that keep what is written, with their value after a reset.
///
/// The interrupt delays among them count for nothing: an interrupt is due when there is something to tell.
pub(super) const PLAIN: [(u64, u32); 44] = [
    (0x0018, 0),           // CTRL_EXT
    (0x001c, 0),           // FLA
    (0x0028, 0),           // FCAL
    (0x002c, 0),           // FCAH
    (0x0030, 0),           // FCT
    (VET, 0),              // VET
    (0x00c4, 0),           // ITR
    (0x0170, 0),           // FCTTV
    (0x0178, 0),           // TXCW
    (0x0410, 0),           // TIPG
    (0x0458, 0),           // AIT
    (0x0e00, 0x0706_8302), // LEDCTL
    (0x1000, 0x0010_0030), // PBA
    (0x2160, 0),           // FCRTL
    (0x2168, 0),           // FCRTH
    (0x2820, 0),           // RDTR
    (0x2828, 0x0001_0000), // RXDCTL
    (0x282c, 0),           // RADV
    (0x2c00, 0),           // RSRPD
    (0x3000, 1),           // TXDMAC
    (0x3410, 0),           // TDFH
    (0x3418, 0),           // TDFT
    (0x3420, 0),           // TDFHS
    (0x3428, 0),           // TDFTS
    (0x3430, 0),           // TDFPC
    (0x3820, 0),           // TIDV
    (0x3828, 0),           // TXDCTL
    (0x382c, 0),           // TADV
    (0x3830, 0),           // TSPMT
    (0x5000, 0),           // RXCSUM
    (0x5800, 0),           // WUC
    (0x5808, 0),           // WUFC
    (0x5810, 0),           // WUS
    (0x5820, 0),           // MANC
    (0x5838, 0),           // IPAV
    (0x5840, 0),           // IP4AT, eight words
    (0x5844, 0),
    (0x5848, 0),
    (0x584c, 0),
    (0x5850, 0),
    (0x5854, 0),
    (0x5858, 0),
    (0x585c, 0),
    (0x5900, 0), // WUPL
];

// Device Control (section 13.4.1).
pub(super) const CTRL_FULL_DUPLEX: u32 = 1;
pub(super) const CTRL_LINK_UP: u32 = 1 << 6;
pub(super) const CTRL_SPEED_1000: u32 = 2 << 8;
pub(super) const CTRL_RESET: u32 = 1 << 26;
pub(super) const CTRL_VLAN: u32 = 1 << 30;
pub(super) const CTRL_PHY_RESET: u32 = 1 << 31;

// Device Status (section 13.4.2).
pub(super) const STATUS_FULL_DUPLEX: u32 = 1;
pub(super) const STATUS_LINK_UP: u32 = 1 << 1;
pub(super) const STATUS_SPEED: u32 = 6;

// EEPROM/Flash Control and EEPROM Read (sections 13.4.3 and 13.4.4).
pub(super) const EECD_CLOCK: u32 = 1;
pub(super) const EECD_CHIP_SELECT: u32 = 1 << 1;
pub(super) const EECD_IN: u32 = 1 << 2;
pub(super) const EECD_OUT: u32 = 1 << 3;
pub(super) const EECD_REQUEST: u32 = 1 << 6;
pub(super) const EECD_GRANT: u32 = 1 << 7;
pub(super) const EECD_PRESENT: u32 = 1 << 8;
pub(super) const EERD_START: u32 = 1;
pub(super) const EERD_DONE: u32 = 1 << 4;

// MDI Control (section 13.4.8).
pub(super) const MDIC_OPERATION: u32 = 3 << 26;
pub(super) const MDIC_WRITE: u32 = 1 << 26;
pub(super) const MDIC_READ: u32 = 2 << 26;
pub(super) const MDIC_READY: u32 = 1 << 28;
pub(super) const MDIC_INTERRUPT: u32 = 1 << 29;
pub(super) const MDIC_ERROR: u32 = 1 << 30;
/// The address the PHY answers at.
pub(super) const MDIC_PHY: u32 = 1;

// Interrupt causes (section 13.4.17).
pub(super) const CAUSE_TX_WRITTEN: u32 = 1;
pub(super) const CAUSE_TX_EMPTY: u32 = 1 << 1;
pub(super) const CAUSE_LINK: u32 = 1 << 2;
pub(super) const CAUSE_RX_LOW: u32 = 1 << 4;
pub(super) const CAUSE_RX_OVERRUN: u32 = 1 << 6;
pub(super) const CAUSE_RX: u32 = 1 << 7;
pub(super) const CAUSE_MDI: u32 = 1 << 9;
/// Those there are in this part.
pub(super) const CAUSES: u32 = 0x0001_fedf;

// Receive Control (section 13.4.22).
pub(super) const RCTL_ENABLE: u32 = 1 << 1;
pub(super) const RCTL_UNICAST_ALL: u32 = 1 << 3;
pub(super) const RCTL_MULTICAST_ALL: u32 = 1 << 4;
pub(super) const RCTL_LONG: u32 = 1 << 5;
pub(super) const RCTL_LOOPBACK: u32 = 3 << 6;
pub(super) const RCTL_LOOPBACK_MAC: u32 = 1 << 6;
/// The part of the ring below which it is running low: a half, a quarter, an eighth.
pub(super) const fn rctl_low(rctl: u32) -> u32 {
    2 << (rctl >> 8 & 3)
}
/// Which 12 bits of a multicast address are looked up.
pub(super) const fn rctl_multicast_shift(rctl: u32) -> u32 {
    match rctl >> 12 & 3 {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 0,
    }
}
pub(super) const RCTL_BROADCAST: u32 = 1 << 15;
pub(super) const RCTL_VLAN_FILTER: u32 = 1 << 18;
pub(super) const RCTL_STRIP_CRC: u32 = 1 << 26;
/// Bytes of a receive buffer.
pub(super) const fn rctl_buffer(rctl: u32) -> usize {
    let extended = rctl & 1 << 25 != 0;
    match (rctl >> 16 & 3, extended) {
        (1, true) => 16384,
        (2, true) => 8192,
        (3, true) => 4096,
        (1, false) => 1024,
        (2, false) => 512,
        (3, false) => 256,
        (_, _) => 2048,
    }
}

// Transmit Control (section 13.4.33).
pub(super) const TCTL_ENABLE: u32 = 1 << 1;
pub(super) const TCTL_PAD: u32 = 1 << 3;

/// Receive Address High: address valid (section 13.5.2).
pub(super) const ADDRESS_VALID: u32 = 1 << 31;

/// The first receive address, which the part takes from its EEPROM after a reset.
pub(super) const STATION: [u32; 2] = {
    let [a, b, c, d, e, f] = GUEST_MAC;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]) | ADDRESS_VALID]
};

/// The EEPROM (section 5.6): the words that are not 0, without the station's address in words 0 to 2 and the checksum in the last, which
/// makes all words sum up to [`EEPROM_SUM`]. The first of them says that the identities behind it are to be loaded.
pub(super) const EEPROM: [(usize, u16); 5] =
    [(0x0a, 0x4408), (0x0b, IDENTITY.subsystem), (0x0c, IDENTITY.subsystem_vendor), (0x0d, IDENTITY.device), (0x0e, IDENTITY.vendor)];
pub(super) const EEPROM_SIZE: usize = 64;
pub(super) const EEPROM_SUM: u16 = 0xbaba;

/// PHY registers (IEEE 802.3 section 22.2.4, and those of the M88E1011).
pub(super) mod phy {
    pub(in super::super) const CONTROL: usize = 0;
    pub(in super::super) const CONTROL_SPEED_HIGH: u16 = 1 << 6;
    pub(in super::super) const CONTROL_RESTART: u16 = 1 << 9;
    pub(in super::super) const CONTROL_ISOLATE: u16 = 1 << 10;
    pub(in super::super) const CONTROL_POWER_DOWN: u16 = 1 << 11;
    pub(in super::super) const CONTROL_AUTONEG: u16 = 1 << 12;
    pub(in super::super) const CONTROL_SPEED_LOW: u16 = 1 << 13;
    pub(in super::super) const CONTROL_LOOPBACK: u16 = 1 << 14;
    pub(in super::super) const CONTROL_RESET: u16 = 1 << 15;
    pub(in super::super) const STATUS: usize = 1;
    /// Auto-negotiation complete, link.
    pub(in super::super) const STATUS_UP: u16 = 1 << 5 | 1 << 2;
    pub(in super::super) const ADVERTISE: usize = 4;
    pub(in super::super) const ADVERTISE_100: u16 = 3 << 7;
    pub(in super::super) const GIGABIT_CONTROL: usize = 9;
    /// Full or half duplex.
    pub(in super::super) const FULL_1000: u16 = 3 << 8;
    pub(in super::super) const GIGABIT_STATUS: usize = 10;
    /// The partner can do 1000 Mb/s full duplex, both receivers are fine.
    pub(in super::super) const PARTNER_GIGABIT: u16 = 1 << 11 | 1 << 12 | 1 << 13;
    pub(in super::super) const SPECIFIC_STATUS: usize = 17;
    /// Full duplex, resolved, link.
    pub(in super::super) const SPECIFIC_STATUS_UP: u16 = 1 << 13 | 1 << 11 | 1 << 10;
    /// What software cannot change.
    pub(in super::super) const READ_ONLY: [usize; 10] = [STATUS, 2, 3, 5, 6, 8, GIGABIT_STATUS, 15, SPECIFIC_STATUS, 19];
    /// The registers that are not 0 after a reset: control, status without what depends on the link, identifier (M88E1011, revision 4),
    /// advertisement, the partner's ability, expansion, 1000BASE-T control, extended status, and the part's own control registers.
    pub(in super::super) const RESET: [(usize, u16); 11] = [
        (CONTROL, CONTROL_AUTONEG | 1 << 8 | CONTROL_SPEED_HIGH),
        (STATUS, 0x7949),
        (2, 0x0141),
        (3, 0x0c24),
        (ADVERTISE, 0x01e1),
        (5, 0x41e1),
        (6, 0x0003),
        (GIGABIT_CONTROL, 0x0300),
        (15, 0x3000),
        (16, 0x0068),
        (20, 0x0d60),
    ];
}

/// Statistics registers by index: offset 0x4000 and 4 times the index (section 13.7).
pub(super) mod statistic {
    /// Up to ICRXOC.
    pub(in super::super) const COUNT: usize = index(0x4128);
    pub(in super::super) const MISSED: usize = index(0x4010);
    /// Six registers: frames of up to 64, 127, 255, 511, 1023 and more bytes.
    pub(in super::super) const SIZES_RX: usize = index(0x405c);
    pub(in super::super) const GOOD_RX: usize = index(0x4074);
    pub(in super::super) const BROADCAST_RX: usize = index(0x4078);
    pub(in super::super) const MULTICAST_RX: usize = index(0x407c);
    pub(in super::super) const GOOD_TX: usize = index(0x4080);
    pub(in super::super) const GOOD_OCTETS_RX: usize = index(0x4088);
    pub(in super::super) const GOOD_OCTETS_TX: usize = index(0x4090);
    pub(in super::super) const OVERSIZE: usize = index(0x40ac);
    pub(in super::super) const TOTAL_OCTETS_RX: usize = index(0x40c0);
    pub(in super::super) const TOTAL_OCTETS_TX: usize = index(0x40c8);
    pub(in super::super) const TOTAL_RX: usize = index(0x40d0);
    pub(in super::super) const TOTAL_TX: usize = index(0x40d4);
    pub(in super::super) const SIZES_TX: usize = index(0x40d8);
    pub(in super::super) const MULTICAST_TX: usize = index(0x40f0);
    pub(in super::super) const BROADCAST_TX: usize = index(0x40f4);
    pub(in super::super) const SEGMENTED: usize = index(0x40f8);
    pub(in super::super) const NOT_SEGMENTED: usize = index(0x40fc);
    /// The low halves of 64-bit counters.
    pub(in super::super) const OCTETS: [usize; 4] = [GOOD_OCTETS_RX, GOOD_OCTETS_TX, TOTAL_OCTETS_RX, TOTAL_OCTETS_TX];

    const fn index(offset: usize) -> usize {
        (offset - 0x4000) / 4
    }
}

/// Bytes of a descriptor of either ring.
pub(super) const DESCRIPTOR: usize = 16;
/// Where status and the like lie in one: 8 bytes of a receive descriptor, 4 of a transmit descriptor.
pub(super) const RX_RESULT: u64 = 8;
pub(super) const TX_RESULT: u64 = 12;

/// The frame check sequence.
pub(super) const CRC: usize = 4;
/// The longest frame with its check sequence, without and with [`RCTL_LONG`] (section 13.4.22); a VLAN tag comes on top.
pub(super) const MOST_STANDARD: usize = 1518;
pub(super) const MOST_LONG: usize = 16384;
/// The shortest frame, without its check sequence.
pub(super) const LEAST: usize = 60;
/// The longest frame that goes out, without its check sequence.
pub(super) const MOST_TX_FRAME: usize = MOST_LONG - CRC;
/// The most bytes of a packet that is to be segmented, and the most frames it may become. Linux makes packets of 64 KiB, and frames with
/// no less than 48 bytes of payload (TCP_MIN_SND_MSS in include/net/tcp.h).
pub(super) const MOST_PACKET: usize = 128 * 1024;
pub(super) const MOST_SEGMENTS: usize = 2048;
/// A tag: type and control information (IEEE 802.1Q), behind the addresses.
pub(super) const TAG: usize = 4;
pub(super) const TAG_AT: usize = 12;
pub(super) const TAG_TYPE: u16 = 0x8100;

/// What one register write may cost the transmitter, and what things cost: a descriptor or a frame on top of its bytes. The largest ring
/// Linux sets up (4096 descriptors of 4 KiB) fits in.
pub(super) const BUDGET: usize = 32 << 20;
pub(super) const DESCRIPTOR_COST: usize = 64;
pub(super) const FRAME_COST: usize = 512;

// Receive descriptor (section 3.2.3): status and errors.
pub(super) const RX_DONE: u8 = 1;
pub(super) const RX_END: u8 = 1 << 1;
pub(super) const RX_IGNORE_CHECKSUM: u8 = 1 << 2;
pub(super) const RX_VLAN: u8 = 1 << 3;
pub(super) const RX_INEXACT: u8 = 1 << 7;
pub(super) const RX_DATA_ERROR: u8 = 1 << 7;

/// Transmit descriptor done (section 3.3.3.2).
pub(super) const TX_DONE: u32 = 1;

/// A transmit descriptor taken apart (sections 3.3.3, 3.3.6 and 3.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TxDescriptor {
    pub(super) kind: TxKind,
    /// Report status.
    pub(super) report: bool,
    /// The last dword, whose status the device writes back.
    pub(super) upper: u32,
}

/// What a transmit descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TxKind {
    /// Sets up checksum insertion or, when true, segmentation for the packets to come.
    Context(bool, Context),
    /// A piece of a packet.
    Data(Piece),
}

/// A piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) address: u64,
    pub(super) len: usize,
    /// It is the packet's last.
    pub(super) end: bool,
    /// The device makes the frame check sequence; else the packet has it.
    pub(super) insert_crc: bool,
    /// Segment the packet; the checksums to insert, IP and TCP. Of a packet's first piece.
    pub(super) segment: bool,
    pub(super) checksums: [bool; 2],
    /// A checksum to insert by the old descriptor: start and field. Of a packet's last piece.
    pub(super) checksum_at: Option<[u8; 2]>,
    /// The VLAN tag to insert. Of a packet's last piece.
    pub(super) tag: Option<u16>,
}

/// A TCP/IP context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) ip_start: u8,
    pub(super) ip_field: u8,
    pub(super) ip_end: u16,
    pub(super) tcp_start: u8,
    pub(super) tcp_field: u8,
    pub(super) tcp_end: u16,
    pub(super) tcp: bool,
    pub(super) ipv4: bool,
    pub(super) header: u8,
    pub(super) mss: u16,
}

impl TxDescriptor {
    pub(super) fn parse(bytes: [u8; DESCRIPTOR]) -> Self {
        const END: u8 = 1;
        const INSERT_CRC: u8 = 1 << 1;
        // In a data descriptor: segment. In an old one: insert a checksum.
        const BIT_2: u8 = 1 << 2;
        const REPORT: u8 = 1 << 3;
        const EXTENDED: u8 = 1 << 5;
        const TAG: u8 = 1 << 6;
        let [a, b, c, d, e, f, g, h, len0, len1, len2, command, status, options, special0, special1] = bytes;
        let has = |bit: u8| command & bit != 0;
        let special = u16::from_le_bytes([special0, special1]);
        let extended = has(EXTENDED);
        let kind = if extended && len2 >> 4 == 0 {
            let context = Context {
                ip_start: a,
                ip_field: b,
                ip_end: u16::from_le_bytes([c, d]),
                tcp_start: e,
                tcp_field: f,
                tcp_end: u16::from_le_bytes([g, h]),
                tcp: command & 1 != 0,
                ipv4: command & 2 != 0,
                header: options,
                mss: special,
            };
            TxKind::Context(has(BIT_2), context)
        } else {
            let len = u32::from_le_bytes([len0, len1, if extended { len2 & 0x0f } else { 0 }, 0]);
            TxKind::Data(Piece {
                address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                len: usize::try_from(len).unwrap_or(usize::MAX),
                end: has(END),
                insert_crc: has(INSERT_CRC),
                segment: extended && has(BIT_2),
                checksums: [extended && options & 1 != 0, extended && options & 2 != 0],
                checksum_at: (!extended && has(BIT_2)).then_some([options, len2]),
                tag: has(TAG).then_some(special),
            })
        };
        Self { kind, report: has(REPORT), upper: u32::from_le_bytes([status, options, special0, special1]) }
    }
}
