//! Accesses of devices.

use super::Engine;
use crate::catalogue::Code;
use crate::chunk::chunks;
use crate::copies::StaleRead;
use crate::error::AccessError;
use crate::finding::ByteRange;
use crate::history::Event;
use crate::ids::{Direction, Iova};
use crate::mapping::{Mapping, State};
use crate::rules::{self, device::Fault};
use crate::tap::Input;
use crate::view::Intent;

/// An access that was let through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    pub(crate) mapping: u32,
    /// Bytes of the mapping.
    pub(crate) range: ByteRange,
    /// Whether the device has a copy of its own; else it gets guest RAM itself.
    pub(crate) two_copies: bool,
    /// The device writes.
    pub(crate) stores: bool,
}

/// The access whose slices are being handed out, while the engine stays locked for it.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) access: Access,
    /// Offset in the mapping of the next byte.
    pub(crate) at: u64,
    /// The access for whoever records it, once it is over.
    pub(crate) recorded: Option<Box<Input<'static>>>,
}

/// What a device wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) intent: Intent,
}

impl Wish {
    fn what(self) -> &'static str {
        match (self.read, self.write) {
            (true, true) => "device read and write",
            (false, true) => "device write",
            _ => match self.intent {
                Intent::Use => "device read",
                Intent::Poll => "device poll",
                Intent::Prefetch => "device prefetch",
            },
        }
    }
}

impl Engine {
    /// The mapping, alive or remembered, that has the handle `iova` or is guarded by it.
    #[inline]
    pub(crate) fn find(&self, iova: u64) -> Option<u32> {
        let id = self.table.get(iova)?;
        let mapping = self.mappings.get(id)?;
        (mapping.state != State::Free && mapping.block.contains(iova)).then_some(id)
    }

    #[inline]
    pub(super) fn resolve(&self, device: u32, iova: u64, len: u64) -> Result<Access, Fault> {
        let Some(id) = self.find(iova) else { return Err(Fault::Unknown) };
        let Some(mapping) = self.mappings.get(id) else { return Err(Fault::Unknown) };
        if mapping.device != device {
            return Err(Fault::OtherDevice(id));
        }
        if !mapping.is_live() {
            return Err(Fault::Dead(id));
        }
        let Some(range) = mapping.locate(iova, len) else { return Err(Fault::Outside(id)) };
        if mapping.is_mmio() && !mapping.segments.iter().all(|s| self.ram.contains(s.gpa, s.len)) {
            return Err(Fault::PeerToPeer(id));
        }
        Ok(Access { mapping: id, range, two_copies: mapping.two_copies(), stores: false })
    }

    /// Whether an access would be let through. No rule is applied: asking is not accessing.
    pub(crate) fn reachable(&self, device: u32, iova: u64, len: usize) -> bool {
        len == 0 || self.resolve(device, iova, len as u64).is_ok()
    }

    /// Judges an access of `len` (not 0) bytes and says where they are.
    #[inline]
    pub(crate) fn access(&mut self, device: u32, iova: u64, len: usize, wish: Wish) -> Result<Access, AccessError> {
        let seq = self.tick();
        let resolved = self.resolve(device, iova, len as u64);
        let Some(record) = self.devices.get_mut(device as usize) else { return Err(AccessError::NotMapped(Iova(iova))) };
        let (site, signal) = (record.kick, record.signal);
        if wish.read {
            record.reads += 1;
            self.stats.device_reads += 1;
            self.stats.device_bytes_read += len as u64;
        }
        if wish.write {
            record.writes += 1;
            self.stats.device_writes += 1;
            self.stats.device_bytes_written += len as u64;
        }
        if !record.bus_master || record.at_rest {
            let verdict = if record.at_rest { rules::bus::after_reset(wish.write) } else { rules::bus::no_bus_master(wish.write) };
            // It is about the function, whichever mapping comes first.
            self.report(Some(device), None, site, wish.what(), verdict, None);
            return Err(AccessError::NoBusMaster(Iova(iova)));
        }
        let access = resolved.map_err(|fault| self.refuse_access(device, iova, len, wish, fault))?;
        let access = Access { stores: wish.write, ..access };
        let event = match wish.intent {
            _ if wish.write => Event::DeviceWrite,
            Intent::Use => Event::DeviceRead,
            Intent::Poll => Event::DevicePoll,
            Intent::Prefetch => Event::DevicePrefetch,
        };
        let mut rearmed = false;
        if let Some(mapping) = self.mappings.get_mut(access.mapping) {
            rearmed = mapping.cpu_has && wish.write;
            if wish.write {
                mapping.history.part_at(signal);
            }
            mapping.history.push(seq, event, access.range, site);
        }
        if rearmed {
            self.hold_rearmed(device, access);
        }
        if wish.write && self.cpu.watches() {
            if access.two_copies {
                self.device_writes(access);
            } else {
                self.forget_fetches(access.mapping, access.range);
            }
        }
        self.judge(device, access, wish);
        Ok(access)
    }

    fn refuse_access(&mut self, device: u32, iova: u64, len: usize, wish: Wish, fault: Fault) -> AccessError {
        let address = Iova(iova);
        let site = self.devices.get(device as usize).map(|d| d.kick).unwrap_or_default();
        let mapping = fault.mapping().and_then(|id| self.mappings.get(id));
        let error = match (fault, mapping) {
            (Fault::Outside(_), Some(m)) => AccessError::OutOfBounds { iova: address, len, start: Iova(m.first()), end: Iova(m.end()) },
            (Fault::Dead(_), _) => AccessError::Unmapped(address),
            (Fault::PeerToPeer(_), _) => AccessError::PeerToPeer(address),
            _ => AccessError::NotMapped(address),
        };
        if fault == Fault::Unknown && self.used_unchecked(device, iova, Code::DV209, wish.what(), site) {
            return error;
        }
        if let Fault::Dead(id) = fault
            && let Some(mapping) = self.mappings.get(id)
        {
            let range = rules::device::relative(mapping, iova, len as u64);
            if let Some(unmapped) = self.unmapped_in_flight(id, range) {
                let verdict = rules::device::unmapped_in_flight(mapping, range, wish.what(), site);
                let what = super::unmap::unmap_name(mapping.family);
                self.report(Some(device), Some(id), unmapped, what, verdict, None);
                return error;
            }
        }
        let mapping = fault.mapping().and_then(|id| self.mappings.get(id));
        let physical = if fault == Fault::Unknown { self.copies.mapping_at(iova, &self.mappings) } else { None };
        let in_ram = self.ram.contains(iova, 1);
        let verdict = rules::device::fault(fault, mapping, iova, len as u64, wish.write, physical.is_some(), in_ram);
        match verdict {
            Some(verdict) => self.report(Some(device), fault.mapping().or(physical), site, wish.what(), verdict, None),
            None => self.blind_spot("a device accessed another device's memory (dma_map_resource): peer-to-peer is not supported"),
        }
        error
    }

    /// Rules about an access that reaches memory.
    #[inline]
    fn judge(&mut self, device: u32, access: Access, wish: Wish) {
        if !access.two_copies {
            return;
        }
        let Some(mapping) = self.mappings.get(access.mapping) else { return };
        let site = self.devices.get(device as usize).map(|d| d.kick).unwrap_or_default();
        let uses = wish.read && wish.intent == Intent::Use;
        let wrong_way = rules::device::direction(mapping, access.range, uses, wish.write);
        let judged = uses && mapping.direction != Direction::FromDevice;
        if let Some(verdict) = wrong_way {
            self.report(Some(device), Some(access.mapping), site, wish.what(), verdict, None);
        }
        if judged {
            self.judge_use(device, access);
        }
    }

    #[inline]
    fn judge_use(&mut self, device: u32, access: Access) {
        let Some(mapping) = self.mappings.get(access.mapping) else { return };
        let mut stale: Option<(ByteRange, StaleRead)> = None;
        for chunk in chunks(&mapping.segments, access.range) {
            if let Some(here) = self.copies.judge_read(&chunk, access.mapping) {
                let bytes = chunk.range(here.start, here.end);
                stale = Some(stale.map_or((bytes, here), |(all, first)| (all.hull(bytes), first)));
            }
        }
        if let Some((bytes, stale)) = stale {
            let alias = if stale.never_handed { None } else { self.alias(access.mapping, bytes.start) };
            let verdict = rules::ownership::stale_read(mapping, access.range, bytes, &stale, alias);
            let site = self.devices.get(device as usize).map(|d| d.kick).unwrap_or_default();
            if verdict.code == Code::DV201 {
                self.hold_stale_read(device, access.mapping, site, verdict, &stale.evidence);
                return;
            }
            self.report(Some(device), Some(access.mapping), site, "device read", verdict, Some(&stale.evidence));
        }
    }

    /// The mapping for another device through which the CPU took the byte of mapping `id` at offset `at`, where the two share a buffer.
    pub(super) fn alias(&self, id: u32, at: u64) -> Option<&Mapping> {
        let mapping = self.mappings.get(id)?;
        let chunk = chunks(&mapping.segments, ByteRange { start: at, end: at + 1 }).next()?;
        let gpa = chunk.page + chunk.start as u64;
        let taken = |other: &&Mapping| {
            let segment = other.segments.iter().find(|s| (s.gpa..s.gpa + s.len).contains(&gpa));
            let byte = segment.map(|s| s.offset + (gpa - s.gpa));
            let last = byte.and_then(|byte| other.history.last_handover(ByteRange { start: byte, end: byte + 1 }));
            rules::ownership::is_alias(mapping, other) && last.is_some_and(|e| e.event == Event::ForCpu)
        };
        self.copies.others_at(&chunk, id).filter_map(|other| self.mappings.get(other)).find(taken)
    }

    /// The device uses what it fetched before: judged as if it read it now.
    pub(crate) fn consume(&mut self, device: u32, iova: u64, len: usize) -> Result<(), AccessError> {
        if len == 0 {
            return Ok(());
        }
        self.tick();
        let wish = Wish { read: true, write: false, intent: Intent::Use };
        let access = self.resolve(device, iova, len as u64).map_err(|fault| self.refuse_access(device, iova, len, wish, fault))?;
        self.judge(device, access, wish);
        Ok(())
    }
}
