//! Calls of the DMA API as they lie in a record. Every field is named, so that a new one is not forgotten here.

use crate::code::{Bad, Get, Put};
use dmavet_coherence::{
    AllocFlags, Answer, ApiCall, Attrs, Bdf, Caller, Direction, Extent, Family, Gpa, Iova, Limits, MapCall, PageKind, Rejected, Requester,
    SiteId, SyncCall, UnmapCall,
};

/// The tags of the calls, from this one on, in order of [`ApiCall`].
pub(crate) const FIRST_TAG: u8 = 0x20;
/// In place of the flags of a rejected call: it was a map of vmalloc memory.
const VMALLOC: u64 = 1 << 32;
/// One past the last.
pub(crate) const END_TAG: u8 = FIRST_TAG + 8;

impl Put<'_> {
    pub(crate) fn requester(&mut self, requester: Requester) {
        let (number, platform) = match requester {
            Requester::Pci(bdf) => (bdf.0, 0),
            Requester::Platform(number) => (number, 1),
        };
        self.number(u64::from(number) << 1 | platform);
    }

    pub(crate) fn site(&mut self, site: SiteId) {
        self.number(site.0.into());
    }

    pub(crate) fn iova(&mut self, iova: Iova) {
        self.near(iova.0, |last| &mut last.iova);
    }

    pub(crate) fn gpa(&mut self, gpa: Gpa) {
        self.near(gpa.0, |last| &mut last.page);
    }

    fn ranges(&mut self, ranges: &[(Iova, u64)]) {
        self.length(ranges.len());
        for (iova, len) in ranges {
            self.iova(*iova);
            self.number(*len);
        }
    }

    /// A value that is mostly a power of two less one: 0 to 64 ones, else 255 and the value.
    fn mask(&mut self, mask: u64) {
        if mask & mask.wrapping_add(1) == 0 {
            self.number(mask.count_ones().into());
        } else {
            self.byte(65);
            self.number(mask);
        }
    }

    pub(crate) fn call(&mut self, caller: &Caller, call: &ApiCall, answer: &Answer) {
        let tag = match call {
            ApiCall::Map(_) => 0,
            ApiCall::Unmap(_) => 1,
            ApiCall::Sync(_) => 2,
            ApiCall::SetMask { .. } => 3,
            ApiCall::Bound { .. } => 4,
            ApiCall::Unbound => 5,
            ApiCall::Fail(_) => 6,
            ApiCall::Rejected(_) => 7,
        };
        self.byte(FIRST_TAG + tag);
        let Caller { requester, site, cpu } = *caller;
        self.requester(requester);
        self.site(site);
        self.number(cpu.into());
        match call {
            ApiCall::Map(map) | ApiCall::Fail(map) => self.map(map),
            ApiCall::Unmap(UnmapCall { family, ranges, direction, attrs, cpu_addr }) => {
                self.byte(*family as u8);
                self.byte(*direction as u8);
                self.number(attrs.bits());
                self.number(*cpu_addr);
                self.ranges(ranges);
            }
            ApiCall::Sync(SyncCall { for_cpu, sg, ranges, direction }) => {
                self.byte(u8::from(*for_cpu) | u8::from(*sg) << 1 | (*direction as u8) << 2);
                self.ranges(ranges);
            }
            ApiCall::SetMask { mask } => self.mask(*mask),
            ApiCall::Bound { driver } => self.text(driver),
            ApiCall::Unbound => {}
            ApiCall::Rejected(Rejected::Flags(flags)) => self.number(flags.bits().into()),
            ApiCall::Rejected(Rejected::Vmalloc) => self.number(VMALLOC),
        }
        match answer {
            Answer::Done => self.byte(0),
            Answer::Failed => self.byte(1),
            Answer::Supported(yes) => self.byte(2 + u8::from(*yes)),
            Answer::Handles(handles) => {
                self.byte(4);
                self.ranges(handles);
            }
        }
    }

    fn map(&mut self, map: &MapCall) {
        let MapCall { family, extents, direction, attrs, limits, kind, object, cpu_addr } = map;
        let Limits { mask, seg_boundary, max_seg_size, min_align_mask } = limits;
        self.byte(*family as u8);
        self.byte(*direction as u8 | (*kind as u8) << 2);
        self.number(attrs.bits());
        self.mask(*mask);
        self.mask(*seg_boundary);
        self.number((*max_seg_size).into());
        self.number((*min_align_mask).into());
        self.number(object.0.into());
        self.number(object.1.into());
        self.number(*cpu_addr);
        self.length(extents.len());
        for Extent { gpa, len } in extents {
            self.gpa(*gpa);
            self.number(*len);
        }
    }
}

fn direction(raw: u8) -> Result<Direction, Bad> {
    Direction::from_wire(raw).ok_or(Bad("a direction that does not exist"))
}

impl Get<'_, '_> {
    pub(crate) fn requester(&mut self) -> Result<Requester, Bad> {
        let raw = self.number()?;
        let number = u16::try_from(raw >> 1).map_err(|_| Bad("a requester that cannot be"))?;
        Ok(if raw & 1 == 0 { Requester::Pci(Bdf(number)) } else { Requester::Platform(number) })
    }

    pub(crate) fn site(&mut self) -> Result<SiteId, Bad> {
        self.small().map(SiteId)
    }

    pub(crate) fn iova(&mut self) -> Result<Iova, Bad> {
        self.near(|last| &mut last.iova).map(Iova)
    }

    pub(crate) fn gpa(&mut self) -> Result<Gpa, Bad> {
        self.near(|last| &mut last.page).map(Gpa)
    }

    fn ranges(&mut self) -> Result<Vec<(Iova, u64)>, Bad> {
        (0..self.count(2)?).map(|_| Ok((self.iova()?, self.number()?))).collect()
    }

    fn mask(&mut self) -> Result<u64, Bad> {
        match self.byte()? {
            0 => Ok(0),
            ones @ 1..=64 => Ok(u64::MAX >> (64 - ones)),
            65 => self.number(),
            _ => Err(Bad("a mask of more than 64 bits")),
        }
    }

    fn family(&mut self) -> Result<Family, Bad> {
        Family::from_wire(self.byte()?).ok_or(Bad("a family of calls that does not exist"))
    }

    /// The call of a tag, which was read already.
    pub(crate) fn call(&mut self, tag: u8) -> Result<(Caller, ApiCall, Answer), Bad> {
        let caller = Caller { requester: self.requester()?, site: self.site()?, cpu: self.small()? };
        let call = match tag - FIRST_TAG {
            0 => ApiCall::Map(self.map()?),
            1 => ApiCall::Unmap(UnmapCall {
                family: self.family()?,
                direction: direction(self.byte()?)?,
                attrs: Attrs::from_bits_retain(self.number()?),
                cpu_addr: self.number()?,
                ranges: self.ranges()?,
            }),
            2 => {
                let flags = self.byte()?;
                let (for_cpu, sg, direction) = (flags & 1 != 0, flags & 2 != 0, direction(flags >> 2)?);
                ApiCall::Sync(SyncCall { for_cpu, sg, direction, ranges: self.ranges()? })
            }
            3 => ApiCall::SetMask { mask: self.mask()? },
            4 => ApiCall::Bound { driver: self.text()?.to_owned() },
            5 => ApiCall::Unbound,
            6 => ApiCall::Fail(self.map()?),
            _ => ApiCall::Rejected(match self.number()? {
                VMALLOC => Rejected::Vmalloc,
                flags => {
                    Rejected::Flags(AllocFlags::from_bits_retain(u32::try_from(flags).map_err(|_| Bad("flags of more than 32 bits"))?))
                }
            }),
        };
        let answer = match self.byte()? {
            0 => Answer::Done,
            1 => Answer::Failed,
            2 => Answer::Supported(false),
            3 => Answer::Supported(true),
            4 => Answer::Handles(self.ranges()?),
            _ => return Err(Bad("an answer that does not exist")),
        };
        Ok((caller, call, answer))
    }

    fn map(&mut self) -> Result<MapCall, Bad> {
        let family = self.family()?;
        let flags = self.byte()?;
        Ok(MapCall {
            family,
            direction: direction(flags & 3)?,
            kind: match flags >> 2 {
                0 => PageKind::Other,
                kind => {
                    Some(PageKind::from_wire(kind)).filter(|k| *k != PageKind::Other).ok_or(Bad("a kind of page that does not exist"))?
                }
            },
            attrs: Attrs::from_bits_retain(self.number()?),
            limits: Limits { mask: self.mask()?, seg_boundary: self.mask()?, max_seg_size: self.small()?, min_align_mask: self.small()? },
            object: (self.small()?, self.small()?),
            cpu_addr: self.number()?,
            extents: (0..self.count(2)?).map(|_| Ok(Extent { gpa: self.gpa()?, len: self.number()? })).collect::<Result<_, Bad>>()?,
        })
    }
}
