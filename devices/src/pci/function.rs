//! A PCI function: configuration space, MSI-X and a device model put together.

use super::bar::BarSpec;
use super::config::{ConfigSpace, Identity};
use super::msix::{Msix, MsixSpec};
use super::window::Window;
use crate::bus::{ConfigChange, DecodedRange, MsiSink, PciFunction};
use std::fmt;
use std::sync::Arc;

/// The interrupt vectors a register write raised, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[must_use]
pub struct Vectors(u64);

impl Vectors {
    /// No vector.
    pub const NONE: Self = Self(0);

    /// These and `vector`; a vector above 63 is left out.
    pub const fn with(self, vector: u16) -> Self {
        if vector < 64 { Self(self.0 | 1 << vector) } else { self }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The vectors in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..64).filter(move |vector| self.0 >> vector & 1 != 0)
    }
}

/// What a device is apart from being a PCI function: registers behind BARs.
///
/// Offsets, lengths and bytes come from the guest. [`Function`] has checked that an access lies inside the BAR; the rest is the model's:
/// no panic, no endless work.
pub trait Model: Send {
    /// Who the function says it is.
    fn identity(&self) -> Identity;
    /// All its BARs, the one of the MSI-X structures among them.
    fn bars(&self) -> Vec<BarSpec>;
    /// Its MSI-X structures, if it interrupts.
    fn msix(&self) -> Option<MsixSpec> {
        None
    }
    /// Whether it asks for an interrupt by its pin at this moment; `None` when it has no pin.
    fn interrupt(&self) -> Option<bool> {
        None
    }
    /// Whether it has a power management capability (D0 and D3hot; the way back resets the function).
    fn power_management(&self) -> bool {
        false
    }
    /// Capabilities beside power management and MSI-X, in the order of the list.
    fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }
    /// Reads from a BAR; `data` is to be filled completely, with 0xff where there is nothing.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]);
    /// Writes to a BAR, does what follows from it, and says which vectors to raise.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors;
    /// Back to the state after power-on.
    fn reset(&mut self);
}

/// A capability of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability id.
    pub id: u8,
    /// The bytes behind the id and the next pointer.
    pub body: Vec<u8>,
    /// The bits software can write in them; what is missing is read-only.
    pub writable: Vec<u8>,
    /// Whether it is a window to the BARs (`VIRTIO_PCI_CAP_PCI_CFG`, virtio 1.2 section 4.1.4.9); a function has at most one.
    pub window: bool,
}

/// A [`Model`] as a PCI function.
pub struct Function<D> {
    config: ConfigSpace,
    window: Option<Window>,
    msix: Option<(MsixSpec, Msix)>,
    sink: Arc<dyn MsiSink>,
    /// What the sink was told of the pin last.
    pin: bool,
    model: D,
}

impl<D: fmt::Debug> fmt::Debug for Function<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("model", &self.model).field("msix", &self.msix).finish_non_exhaustive()
    }
}

impl<D: Model> Function<D> {
    /// Composes the function; `msi` is where its interrupts go ([`NoInterrupts`](super::NoInterrupts) for a model without).
    ///
    /// # Panics
    /// If the model asks for BARs or MSI-X structures no function can have: a mistake in the model, not reachable by a guest.
    pub fn new(model: D, msi: Arc<dyn MsiSink>) -> Self {
        let mut config = ConfigSpace::new(&model.identity(), &model.bars());
        if model.power_management() {
            config.add_power_management();
        }
        let msix = model.msix().map(|spec| {
            check_msix(&spec, config.bar(usize::from(spec.bar)));
            config.add_msix(&spec);
            (spec, Msix::new(spec.vectors, msi.clone()))
        });
        if model.interrupt().is_some() {
            config.add_interrupt_pin();
        }
        let mut window = None;
        for Capability { id, body, writable, window: is_window } in model.capabilities() {
            let offset = config.add_capability(id, &body, &writable);
            window = if is_window { Some(Window::new(offset)) } else { window };
        }
        Self { config, window, msix, sink: msi, pin: false, model }
    }

    /// The model.
    pub const fn model(&self) -> &D {
        &self.model
    }

    /// The model, to be changed from outside a register access; let what follows happen with [`raise`](Self::raise).
    pub const fn model_mut(&mut self) -> &mut D {
        &mut self.model
    }

    /// Raises vectors, and takes the pin to where the model wants it, for a reason other than a register access.
    pub fn raise(&mut self, vectors: Vectors) {
        self.refresh_pin();
        if let Some((_, msix)) = &mut self.msix {
            for vector in vectors.iter() {
                msix.raise(vector);
            }
        }
    }

    /// Takes the interrupt pin to where the model wants it, as far as configuration space lets it.
    fn refresh_pin(&mut self) {
        let Some(asks) = self.model.interrupt() else { return };
        self.config.set_interrupt_status(asks);
        let asserted = asks && self.config.pin_enabled();
        if asserted != self.pin {
            self.pin = asserted;
            self.sink.set_pin(asserted);
        }
    }

    fn in_bar(&self, bar: usize, offset: u64, len: usize) -> bool {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        self.config.bar(bar).is_some_and(|spec| end.is_some_and(|end| end <= spec.size))
    }

    fn msix_part(&self, bar: usize, offset: u64) -> Option<MsixPart> {
        let (spec, _) = self.msix.as_ref().filter(|(spec, _)| usize::from(spec.bar) == bar)?;
        if spec.table().contains(&offset) {
            Some(MsixPart::Table(offset - spec.table().start))
        } else if spec.pba().contains(&offset) {
            Some(MsixPart::Pba(offset - spec.pba().start))
        } else {
            None
        }
    }
}

/// The MSI-X structure an access begins in, and where in it.
enum MsixPart {
    Table(u64),
    Pba(u64),
}

fn check_msix(spec: &MsixSpec, bar: Option<&BarSpec>) {
    assert!((1..=64).contains(&spec.vectors), "{spec:?}: 1 to 64 vectors");
    assert!((spec.table_offset | spec.pba_offset).is_multiple_of(8), "{spec:?}: offsets are multiples of 8");
    let (table, pba) = (spec.table(), spec.pba());
    assert!(table.end <= pba.start || pba.end <= table.start, "{spec:?}: table and pending bits overlap");
    let end = table.end.max(pba.end);
    assert!(bar.is_some_and(|bar| end <= bar.size), "{spec:?}: does not fit into {bar:?}");
}

impl<D: Model> PciFunction for Function<D> {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        if let Some(access) = self.window.and_then(|window| window.access(&self.config, offset, data.len())) {
            let mut bytes = [0; Window::DATA];
            let bytes = bytes.get_mut(..access.len).unwrap_or_default();
            self.read_bar(access.bar, access.offset, bytes);
            self.config.put(access.data, bytes);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigChange {
        let change = self.config.write(offset, data);
        if change.contains(ConfigChange::RESET) {
            self.model.reset();
            if let Some((_, msix)) = &mut self.msix {
                msix.reset();
            }
        }
        let control = self.config.msix_control();
        if let Some((_, msix)) = &mut self.msix {
            msix.set_control(control);
        }
        if let Some(access) = self.window.and_then(|window| window.access(&self.config, offset, data.len())) {
            let mut bytes = [0; Window::DATA];
            let bytes = bytes.get_mut(..access.len).unwrap_or_default();
            self.config.read(access.data, bytes);
            self.write_bar(access.bar, access.offset, bytes);
        }
        self.refresh_pin();
        change
    }

    fn ranges(&self) -> Vec<DecodedRange> {
        self.config.ranges()
    }

    fn bus_master(&self) -> bool {
        self.config.bus_master()
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        if !self.in_bar(bar, offset, data.len()) {
            data.fill(0xff);
            return;
        }
        match (self.msix_part(bar, offset), &self.msix) {
            (Some(MsixPart::Table(offset)), Some((_, msix))) => msix.read_table(offset, data),
            (Some(MsixPart::Pba(offset)), Some((_, msix))) => msix.read_pba(offset, data),
            _ => {
                self.model.read_bar(bar, offset, data);
                self.refresh_pin();
            }
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if !self.in_bar(bar, offset, data.len()) {
            return;
        }
        match (self.msix_part(bar, offset), &mut self.msix) {
            (Some(MsixPart::Table(offset)), Some((_, msix))) => msix.write_table(offset, data),
            (Some(MsixPart::Pba(_)), _) => {}
            _ => {
                let vectors = self.model.write_bar(bar, offset, data);
                self.raise(vectors);
            }
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        if let Some((_, msix)) = &mut self.msix {
            msix.reset();
        }
        self.model.reset();
        self.refresh_pin();
    }
}

#[cfg(test)]
mod tests;
