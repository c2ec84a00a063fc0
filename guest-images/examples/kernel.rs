//! Fetches a kernel into the cache and says where its parts are: `cargo run -p dmavet-images --example kernel -- debian:6.1`.

use dmavet_images::cache::Cache;
use dmavet_images::kernel::{busybox, kernel};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::open(None)?;
    let observer = |step| eprintln!("{step}");
    for name in std::env::args().skip(1) {
        let started = std::time::Instant::now();
        println!("{:#?}", kernel(&cache, &name.parse()?, false, &observer)?);
        println!("busybox: {}", busybox(&cache, &observer)?.display());
        println!("{:.2} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}
