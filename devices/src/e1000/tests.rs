//! The driver's side of the 82540EM, played against the manual: offsets and bits are written out here on purpose.
