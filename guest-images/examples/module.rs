//! Builds the reference driver (or a variant, or a directory) for a kernel: `... --example module -- debian:6.1 [VARIANT|NAME=DIR]...`

use dmavet_images::cache::Cache;
use dmavet_images::kernel::kernel;
use dmavet_images::module::{ModuleSource, build};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::open(None)?;
    let observer = |step| eprintln!("{step}");
    let mut args = std::env::args().skip(1);
    let kernel = kernel(&cache, &args.next().unwrap_or_else(|| "debian".into()).parse()?, false, &observer)?;
    for what in args {
        let started = std::time::Instant::now();
        let source = match what.split_once('=') {
            Some((name, dir)) => ModuleSource::from_dir(name, dir.as_ref())?,
            None if what == "agent" => ModuleSource::agent(),
            None => ModuleSource::ncdma_variant(&what)?,
        };
        println!("{:#?}\n{:.2} s", build(&cache, &kernel, &source, &observer)?, started.elapsed().as_secs_f64());
    }
    Ok(())
}
