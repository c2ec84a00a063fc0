//! The agent's PCI function, 00:01.0: one BAR of registers in front of [`dmavet_agent::Agent`].

use dmavet_agent::{Agent, AgentEvent, DmaCore, abi};
use dmavet_devices::pci::{BarSpec, Function, Identity, Model, NoInterrupts, Vectors};
use std::sync::Arc;

/// Class: base system peripheral, other.
const CLASS: u32 = 0x08_80_00;
const BAR: usize = 0;

/// Acts on what the guest told through the agent, before the guest's doorbell write returns.
pub trait AgentSink: Send {
    /// One event.
    fn event(&mut self, event: AgentEvent);
}

/// The registers.
pub struct AgentModel<C: DmaCore, S> {
    agent: Agent<C>,
    sink: S,
}

impl<C: DmaCore, S: AgentSink> Model for AgentModel<C, S> {
    fn identity(&self) -> Identity {
        Identity::dmavet(abi::PCI_DEVICE, CLASS)
    }
    fn bars(&self) -> Vec<BarSpec> {
        vec![BarSpec::memory32(BAR, abi::REG_BAR_SIZE)]
    }
    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.agent.read_register(offset, data);
    }
    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) -> Vectors {
        for event in self.agent.write_register(offset, data) {
            self.sink.event(event);
        }
        Vectors::NONE
    }
    fn reset(&mut self) {
        self.agent.reset();
    }
}

/// The function for `agent`, whose events go to `sink`.
pub fn function<C: DmaCore + 'static, S: AgentSink + 'static>(agent: Agent<C>, sink: S) -> Function<AgentModel<C, S>> {
    Function::new(AgentModel { agent, sink }, Arc::new(NoInterrupts))
}
