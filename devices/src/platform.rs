//! Platform devices: registers in a window and one interrupt line, no bus. What a device model is apart from that is a [`Model`].

pub use crate::bus::Description;
use crate::bus::{LineSink, PlatformDevice};
use std::fmt;
use std::sync::Arc;

/// What a device is apart from where it sits. [`Node`] has checked that an access lies inside the window; the rest is the model's: no
/// panic, no endless work.
pub trait Model: Send {
    /// What firmware says about it.
    fn description(&self) -> Description;
    /// Reads registers; `data` is to be filled completely, with 0xff where there is nothing.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Writes registers and does what follows from it.
    fn write(&mut self, offset: u64, data: &[u8]);
    /// Whether the interrupt line is high.
    fn line(&self) -> bool;
    /// Back to the state after power-on.
    fn reset(&mut self);
}

/// A [`Model`] as a platform device.
pub struct Node<D> {
    model: D,
    size: u64,
    line: Arc<dyn LineSink>,
    high: bool,
}

impl<D: fmt::Debug> fmt::Debug for Node<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("model", &self.model).field("high", &self.high).finish_non_exhaustive()
    }
}

impl<D: Model> Node<D> {
    /// The largest register window in bytes.
    pub const MAX_SIZE: u64 = 0x1_0000;

    /// Puts `model` on its line.
    ///
    /// # Panics
    /// If the model's window is not what [`Description::size`] says: a mistake in the model, not reachable by a guest.
    pub fn new(model: D, line: Arc<dyn LineSink>) -> Self {
        let size = model.description().size;
        assert!(size.is_power_of_two() && size <= Self::MAX_SIZE, "a register window of {size:#x} bytes");
        Self { model, size, line, high: false }
    }

    /// The model.
    pub const fn model(&self) -> &D {
        &self.model
    }

    fn contains(&self, offset: u64, len: usize) -> bool {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        end.is_some_and(|end| end <= self.size)
    }

    fn update_line(&mut self) {
        let high = self.model.line();
        if high != self.high {
            self.high = high;
            self.line.set(high);
        }
    }
}

impl<D: Model> PlatformDevice for Node<D> {
    fn description(&self) -> Description {
        self.model.description()
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.contains(offset, data.len()) {
            self.model.read(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if self.contains(offset, data.len()) {
            self.model.write(offset, data);
            self.update_line();
        }
    }

    fn reset(&mut self) {
        self.model.reset();
        self.update_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Levels(Mutex<Vec<bool>>);

    impl LineSink for Levels {
        fn set(&self, high: bool) {
            self.0.lock().unwrap().push(high);
        }
    }

    /// One byte; the line is high while it is not 0.
    struct Latch(u8);

    impl Model for Latch {
        fn description(&self) -> Description {
            Description { compatible: "test,latch", size: 0x100 }
        }
        fn read(&mut self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }
        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data.first().copied().unwrap_or(0);
        }
        fn line(&self) -> bool {
            self.0 != 0
        }
        fn reset(&mut self) {
            self.0 = 0;
        }
    }

    #[test]
    fn the_line_follows_the_model_and_only_changes_are_told() {
        let levels = Arc::new(Levels::default());
        let mut node = Node::new(Latch(0), levels.clone());
        for value in [0, 3, 4, 0, 0, 9] {
            node.write(0, &[value]);
        }
        node.reset();
        node.reset();
        assert_eq!(*levels.0.lock().unwrap(), [true, false, true, false]);
    }

    #[test]
    fn what_sticks_out_of_the_window_is_all_ones() {
        let mut node = Node::new(Latch(7), Arc::new(Levels::default()));
        let mut data = [0; 4];
        for offset in [0xfd, 0x100, u64::MAX - 1] {
            node.write(offset, &[1; 4]);
            node.read(offset, &mut data);
            assert_eq!(data, [0xff; 4], "{offset:#x}");
        }
        node.read(0xfc, &mut data);
        assert_eq!(data, [7; 4]);
    }
}
