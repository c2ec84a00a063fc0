//! Says whether this host's KVM can run Linux.

fn main() {
    let start = std::time::Instant::now();
    let found = dmavet_vmm::probe();
    println!("{found:?} after {} ms", start.elapsed().as_millis());
    if let Err(error) = found.require() {
        println!("{error}");
    }
}
