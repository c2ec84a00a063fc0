//! The state machine of the transport. Section numbers are those of virtio 1.2.
//!
//! ```text
//! 0 --ACKNOWLEDGE, DRIVER--> features --FEATURES_OK--> queues --DRIVER_OK--> running --a ring no driver makes--> NEEDS_RESET
//!  ^------------------------------------ writing 0 to the status ------------------------------------------------|
//! ```

use super::queue::{Queues, Setup, Virtqueue};
use super::spec::{self, EVENT_IDX, ISR_CONFIG, ISR_QUEUE, NO_VECTOR, Part, REGISTERS, REQUIRED, Reg, TRANSPORT_FEATURES};
use super::{Kind, VirtioDevice};
use crate::bus::DeviceMemory;
use crate::pci::{BarSpec, Capability, Identity, Model, MsixSpec, Vectors};
use std::fmt;
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use vm_memory::GuestMemory;

/// Status bits (section 2.1).
const DRIVER_OK: u64 = VIRTIO_CONFIG_S_DRIVER_OK as u64;
const FEATURES_OK: u64 = VIRTIO_CONFIG_S_FEATURES_OK as u64;
const NEEDS_RESET: u64 = VIRTIO_CONFIG_S_NEEDS_RESET as u64;

/// What a reset puts back.
#[derive(Clone, Copy, Debug)]
struct State {
    device_feature_select: u64,
    driver_feature_select: u64,
    driver_features: u64,
    config_vector: u16,
    status: u64,
    queue_select: u16,
    isr: u8,
}

impl State {
    const RESET: Self = Self {
        device_feature_select: 0,
        driver_feature_select: 0,
        driver_features: 0,
        config_vector: NO_VECTOR,
        status: 0,
        queue_select: 0,
        isr: 0,
    };
}

/// A virtio device on PCI.
pub struct Transport<D, M> {
    device: D,
    kind: Kind,
    memory: DeviceMemory<M>,
    queues: Vec<Virtqueue>,
    state: State,
    /// To be raised at the end of the register write.
    vectors: Vectors,
}

impl<D: fmt::Debug, M> fmt::Debug for Transport<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("device", &self.device).field("state", &self.state).finish_non_exhaustive()
    }
}

impl<D: VirtioDevice<M>, M: GuestMemory> Transport<D, M> {
    pub(super) fn new(device: D, memory: DeviceMemory<M>) -> Self {
        let kind = device.kind();
        let queues = kind.queues.iter().map(|max| Virtqueue::new(*max)).collect();
        Self { device, kind, memory, queues, state: State::RESET, vectors: Vectors::NONE }
    }

    /// The device behind the transport.
    pub const fn device(&self) -> &D {
        &self.device
    }

    fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn selected(&self) -> Option<&Virtqueue> {
        self.queues.get(usize::from(self.state.queue_select))
    }

    fn get(&self, reg: Reg) -> u64 {
        let state = &self.state;
        let setup = |of: fn(&Setup) -> u64| self.selected().map_or(0, |queue| of(&queue.setup));
        match reg {
            Reg::DeviceFeatureSelect => state.device_feature_select,
            Reg::DeviceFeature => half(self.offered(), state.device_feature_select),
            Reg::DriverFeatureSelect => state.driver_feature_select,
            Reg::DriverFeature => half(state.driver_features, state.driver_feature_select),
            Reg::ConfigVector => u64::from(state.config_vector),
            Reg::NumQueues => self.queues.len() as u64,
            Reg::Status => state.status,
            // Nothing in the configuration changes on its own.
            Reg::ConfigGeneration => 0,
            Reg::QueueSelect => u64::from(state.queue_select),
            // 0 for a queue there is not.
            Reg::QueueSize => setup(|setup| u64::from(setup.size)),
            Reg::QueueVector => u64::from(self.selected().map_or(NO_VECTOR, |queue| queue.setup.vector)),
            Reg::QueueEnable => self.selected().map_or(0, |queue| u64::from(queue.is_enabled())),
            Reg::QueueNotifyOff => self.selected().map_or(0, |_| u64::from(state.queue_select)),
            Reg::QueueDesc => setup(|setup| setup.desc),
            Reg::QueueDriver => setup(|setup| setup.driver),
            Reg::QueueDevice => setup(|setup| setup.device),
        }
    }

    fn set(&mut self, reg: Reg, value: u64, mask: u64) {
        let value = self.get(reg) & !mask | value;
        let state = &mut self.state;
        match reg {
            Reg::DeviceFeatureSelect => state.device_feature_select = value,
            Reg::DriverFeatureSelect => state.driver_feature_select = value,
            Reg::DriverFeature => self.accept(value),
            Reg::ConfigVector => self.state.config_vector = self.vector(value),
            Reg::Status => self.set_status(value),
            Reg::QueueSelect => state.queue_select = word(value),
            Reg::QueueVector => {
                let vector = self.vector(value);
                self.set_up(|setup| setup.vector = vector);
            }
            Reg::QueueEnable => self.enable(value),
            Reg::QueueSize => self.set_up(|setup| setup.size = word(value)),
            Reg::QueueDesc => self.set_up(|setup| setup.desc = value),
            Reg::QueueDriver => self.set_up(|setup| setup.driver = value),
            Reg::QueueDevice => self.set_up(|setup| setup.device = value),
            // Read-only: the register table has swallowed the write.
            Reg::DeviceFeature | Reg::NumQueues | Reg::ConfigGeneration | Reg::QueueNotifyOff => {}
        }
    }

    /// Section 2.2: until FEATURES_OK.
    fn accept(&mut self, value: u64) {
        if self.state.status & FEATURES_OK == 0 {
            let shift = match self.state.driver_feature_select {
                0 => 0,
                1 => 32,
                _ => return,
            };
            self.state.driver_features = self.state.driver_features & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift;
        }
    }

    /// A vector the function has, else none (section 4.1.5.1.2.1).
    fn vector(&self, value: u64) -> u16 {
        let vector = word(value);
        if vector < spec::msix(&self.kind).vectors { vector } else { NO_VECTOR }
    }

    /// Changes the selected queue's setup, until it is enabled.
    fn set_up(&mut self, change: impl FnOnce(&mut Setup)) {
        if let Some(queue) = self.queues.get_mut(usize::from(self.state.queue_select)).filter(|queue| !queue.is_enabled()) {
            change(&mut queue.setup);
        }
    }

    /// Section 4.1.4.3.2: a driver writes nothing but 1.
    fn enable(&mut self, value: u64) {
        let queue = self.queues.get_mut(usize::from(self.state.queue_select));
        if let Some(queue) = queue.filter(|queue| value == 1 && !queue.is_enabled())
            && !queue.enable()
        {
            self.fail();
        }
    }

    fn set_status(&mut self, value: u64) {
        if value == 0 {
            self.reset_all();
            return;
        }
        let before = self.state.status;
        // A driver only ever sets bits; NEEDS_RESET is the device's.
        let mut status = before | value & !NEEDS_RESET;
        let accepted = self.state.driver_features;
        if accepted & !self.offered() != 0 || accepted & REQUIRED != REQUIRED {
            status &= !FEATURES_OK;
        }
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        self.state.status = status;
        if status & !before & DRIVER_OK != 0 {
            self.queues.iter_mut().for_each(|queue| queue.set_event_idx(accepted & EVENT_IDX != 0));
            self.device.activate(accepted);
            // Buffers and notifications may have come before.
            for queue in 0..self.queues.len() {
                self.notified(queue);
            }
        }
    }

    const fn is_running(&self) -> bool {
        self.state.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    fn notified(&mut self, queue: usize) {
        if !self.is_running() || !self.queues.get(queue).is_some_and(Virtqueue::is_enabled) {
            return;
        }
        self.queues.iter_mut().for_each(Virtqueue::begin);
        let mut queues = Queues::new(&self.memory, &mut self.queues);
        self.device.notified(queue, &mut queues);
        let mut broken = queues.is_broken();
        for queue in &mut self.queues {
            match queue.interrupts(&self.memory) {
                Ok(true) => {
                    self.state.isr |= ISR_QUEUE;
                    self.vectors = self.vectors.with(queue.setup.vector);
                }
                Ok(false) => {}
                Err(_) => broken = true,
            }
        }
        if broken {
            self.fail();
        }
    }

    /// Section 2.1.2: the device needs a reset, and says so.
    const fn fail(&mut self) {
        self.state.status |= NEEDS_RESET;
        if self.state.status & DRIVER_OK != 0 {
            self.state.isr |= ISR_CONFIG;
            self.vectors = self.vectors.with(self.state.config_vector);
        }
    }

    fn reset_all(&mut self) {
        self.state = State::RESET;
        self.queues.iter_mut().for_each(Virtqueue::reset);
        self.device.reset();
    }
}

impl<D: VirtioDevice<M>, M: GuestMemory + Send> Model for Transport<D, M> {
    fn identity(&self) -> Identity {
        spec::identity(&self.kind)
    }

    fn bars(&self) -> Vec<BarSpec> {
        spec::bars()
    }

    fn msix(&self) -> Option<MsixSpec> {
        Some(spec::msix(&self.kind))
    }

    fn power_management(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Vec<Capability> {
        spec::capabilities(&self.kind, self.device.config().len())
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        match spec::part(offset).filter(|_| bar == spec::BAR) {
            Some(Part::Common(offset)) => REGISTERS.read(offset, data, |reg| self.get(reg)),
            Some(Part::Isr) => {
                if let Some(first) = data.first_mut() {
                    *first = std::mem::take(&mut self.state.isr);
                }
            }
            Some(Part::Device(offset)) => {
                let bytes = usize::try_from(offset).ok().and_then(|offset| self.device.config().get(offset..));
                data.iter_mut().zip(bytes.unwrap_or_default()).for_each(|(to, from)| *to = *from);
            }
            Some(Part::Notify(_)) | None => {}
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Vectors {
        match spec::part(offset).filter(|_| bar == spec::BAR) {
            Some(Part::Common(offset)) => REGISTERS.write(offset, data, |reg, value, mask| self.set(reg, value, mask)),
            Some(Part::Notify(queue)) => self.notified(queue),
            // No device here has a configuration field that drivers write.
            Some(Part::Isr | Part::Device(_)) | None => {}
        }
        std::mem::take(&mut self.vectors)
    }

    fn reset(&mut self) {
        self.reset_all();
        self.vectors = Vectors::NONE;
    }
}

/// The half of the feature bits that is selected; there are none above 63.
const fn half(features: u64, select: u64) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}

fn word(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
