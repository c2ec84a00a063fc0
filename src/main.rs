//! dmavet.
fn main() {}
