//! What the registers read as and what a write to one asks for (section 3 of `docs/ncdma.md`).

use super::super::spec::{
    CAPS_MAX_BUFFER_KIB, CAPS_MAX_RING_LOG2, CTRL_ENABLE, CTRL_INT_ENABLE, CTRL_RESET, ErrorCode, ID, INT_ALL, MAX_FRAMES, RING_ENABLE,
    Reg, RingId, RingReg, STATUS_BLOCK_ALIGN, STATUS_ENABLED, STATUS_HALTED, TX_LOOPBACK, VERSION,
};
use super::{Ncdma, State, low};
use vm_memory::GuestMemory;

impl<M: GuestMemory> Ncdma<M> {
    pub(super) fn read_register(&self, reg: Reg) -> u32 {
        let state = &self.state;
        match reg {
            Reg::Id => ID,
            Reg::Version => VERSION,
            Reg::Caps => CAPS_MAX_BUFFER_KIB | CAPS_MAX_RING_LOG2 | u32::from(self.address_bits),
            Reg::Ctrl => state.ctrl,
            Reg::Status => {
                let halted = if state.halted { STATUS_HALTED } else { 0 };
                if self.enabled() { STATUS_ENABLED | halted } else { halted }
            }
            Reg::Error => state.error,
            Reg::ErrAddrLo => low(state.error_address),
            Reg::ErrAddrHi => low(state.error_address >> 32),
            Reg::IntStatus => state.int_status,
            Reg::IntMask => state.int_mask,
            Reg::StatusBlockLo => low(state.status_block),
            Reg::StatusBlockHi => low(state.status_block >> 32),
            Reg::GenSeed => state.gen_seed,
            Reg::GenLen => state.gen_len,
            Reg::GenCount => 0,
            Reg::GenDone => state.gen_done,
            Reg::GenDropped => state.gen_dropped,
            Reg::TxCtrl => state.tx_ctrl,
            Reg::LoopDropped => state.loop_dropped,
            Reg::Ring(id, reg) => {
                let ring = state.ring(id);
                match reg {
                    RingReg::BaseLo => low(ring.base),
                    RingReg::BaseHi => low(ring.base >> 32),
                    RingReg::Size => ring.size,
                    RingReg::Head => ring.head(),
                    RingReg::Tail => ring.tail(),
                    RingReg::Ctrl => u32::from(ring.is_on()),
                }
            }
        }
    }

    pub(super) fn write_register(&mut self, reg: Reg, value: u32) {
        let before = self.interrupting();
        let state = &mut self.state;
        match reg {
            Reg::Ctrl if value & CTRL_RESET != 0 => *state = State::default(),
            Reg::Ctrl => {
                let enabled = state.ctrl & CTRL_ENABLE;
                state.ctrl = value & (CTRL_ENABLE | CTRL_INT_ENABLE);
                if state.ctrl & CTRL_ENABLE > enabled {
                    self.run(RingId::Command);
                    self.run(RingId::Transmit);
                }
            }
            Reg::IntStatus => state.int_status &= !value,
            Reg::IntMask => state.int_mask = value & INT_ALL,
            Reg::StatusBlockLo => set_low(&mut state.status_block, value & !(STATUS_BLOCK_ALIGN - 1)),
            Reg::StatusBlockHi => set_high(&mut state.status_block, value),
            Reg::GenSeed => state.gen_seed = value,
            Reg::GenLen => state.gen_len = value,
            Reg::GenCount => self.generate(value.min(MAX_FRAMES)),
            Reg::TxCtrl => state.tx_ctrl = value & TX_LOOPBACK,
            Reg::Ring(id, RingReg::BaseLo) => set_low(&mut state.ring_mut(id).base, value),
            Reg::Ring(id, RingReg::BaseHi) => set_high(&mut state.ring_mut(id).base, value),
            Reg::Ring(id, RingReg::Size) => state.ring_mut(id).size = value,
            Reg::Ring(id, RingReg::Tail) => self.doorbell(id, value),
            Reg::Ring(id, RingReg::Ctrl) => self.switch_ring(id, value & RING_ENABLE != 0),
            // Read-only: the register table has swallowed the write.
            Reg::Id | Reg::Version | Reg::Caps | Reg::Status | Reg::Error | Reg::ErrAddrLo | Reg::ErrAddrHi => {}
            Reg::GenDone | Reg::GenDropped | Reg::LoopDropped | Reg::Ring(_, RingReg::Head) => {}
        }
        // Section 9: a mask that lets a waiting bit through sends its message.
        if matches!(reg, Reg::Ctrl | Reg::IntMask) {
            self.messages |= self.interrupting() & !before;
        }
    }

    /// Section 3.2.
    fn switch_ring(&mut self, id: RingId, on: bool) {
        let halted = self.state.halted;
        let ring = self.state.ring_mut(id);
        if !on {
            ring.switch_off();
        } else if !halted && ring.switch_on().is_none() {
            let base = ring.base;
            let _halt = self.fail(ErrorCode::BadRing, base);
        }
    }

    fn doorbell(&mut self, id: RingId, tail: u32) {
        let halted = self.state.halted;
        let ring = self.state.ring_mut(id);
        if halted || !ring.is_on() {
            return;
        }
        if ring.set_tail(tail).is_none() {
            let base = ring.base;
            let _halt = self.fail(ErrorCode::BadRing, base);
        } else if id != RingId::Receive {
            self.run(id);
        }
    }
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !0xffff_ffff | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}
