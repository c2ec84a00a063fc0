//! Numbers, bytes and text as they lie in a record: varints (LEB128), signed differences in zigzag, lengths before contents.

/// Why a record makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

/// The longest text in a record.
pub(crate) const MAX_TEXT: usize = 64 << 10;

/// Values that records store as the difference to the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) iova: u64,
    pub(crate) page: u64,
    pub(crate) time: u64,
    pub(crate) code: u64,
}

/// Writes a record.
pub(crate) struct Put<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) last: &'a mut Last,
}

impl Put<'_> {
    pub(crate) fn byte(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.out.push(value.to_le_bytes()[0]);
    }

    pub(crate) fn length(&mut self, value: usize) {
        self.number(value as u64);
    }

    /// A value near the last one of its kind.
    pub(crate) fn near(&mut self, value: u64, last: impl FnOnce(&mut Last) -> &mut u64) {
        let last = last(self.last);
        let step = value.wrapping_sub(*last).cast_signed();
        *last = value;
        self.number(((step << 1) ^ (step >> 63)).cast_unsigned());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.out.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }
}

/// Reads a record.
pub(crate) struct Get<'a, 'b> {
    pub(crate) rest: &'a [u8],
    pub(crate) last: &'b mut Last,
}

impl<'a> Get<'a, '_> {
    pub(crate) fn byte(&mut self) -> Result<u8, Bad> {
        let (first, rest) = self.rest.split_first().ok_or(Bad("a record is cut off"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Bad> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad("a flag that is neither set nor clear")),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad("a number of more than 64 bits"))
    }

    pub(crate) fn small(&mut self) -> Result<u32, Bad> {
        u32::try_from(self.number()?).map_err(|_| Bad("a number of more than 32 bits"))
    }

    pub(crate) fn near(&mut self, last: impl FnOnce(&mut Last) -> &mut u64) -> Result<u64, Bad> {
        let raw = self.number()?;
        let step = (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed();
        let last = last(self.last);
        *last = last.wrapping_add(step.cast_unsigned());
        Ok(*last)
    }

    /// A number of items of which each takes at least `each` bytes: never more than can follow.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Bad> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count.saturating_mul(each) > self.rest.len() { Err(Bad("a list that is longer than its block")) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let length = self.count(1)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Bad("a record is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Bad> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Bad("text that is not UTF-8"))?;
        if text.len() > MAX_TEXT { Err(Bad("text that is too long")) } else { Ok(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in prop::collection::vec(any::<u64>(), 0..20)) {
            let (mut out, mut last) = (Vec::new(), Last::default());
            let mut put = Put { out: &mut out, last: &mut last };
            for value in &values {
                put.number(*value);
                put.near(*value, |l| &mut l.iova);
            }
            let mut last = Last::default();
            let mut get = Get { rest: &out, last: &mut last };
            for value in &values {
                prop_assert_eq!(get.number(), Ok(*value));
                prop_assert_eq!(get.near(|l| &mut l.iova), Ok(*value));
            }
            prop_assert!(get.rest.is_empty());
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut last = Last::default();
        let long = [0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        assert!(Get { rest: &long, last: &mut last }.bytes().is_err());
        assert!(Get { rest: &[0xff; 11], last: &mut last }.number().is_err());
        assert!(Get { rest: &[3], last: &mut last }.flag().is_err());
    }
}
