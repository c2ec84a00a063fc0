//! From the distribution's source package to modules: the driver as it is, its mutants, and one that tells which calls it reaches.

use super::api::{self, Table};
use super::rules::{self, Mutant};
use super::scan::Source;
use super::table::{DRIVERS, Driver};
use dmavet_images::cache::Cache;
use dmavet_images::initramfs::Image;
use dmavet_images::kernel::{self, KernelFiles};
use dmavet_images::module::{self, ModuleSource};
use dmavet_images::progress::Step;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// A driver's source with everything that can be done to it.
pub struct Prepared {
    pub driver: &'static Driver,
    kernel: KernelFiles,
    /// Files by name below the driver's folder.
    sources: Vec<(String, Source)>,
    headers: Vec<(String, Vec<u8>)>,
    table: Table,
    pub mutants: Vec<Mutant>,
    /// How many more are left out, by reason.
    pub left_out: Vec<(&'static str, usize)>,
    /// Lines of its calls of the DMA API, by file below the kernel's source.
    pub calls: Vec<(String, u32)>,
}

/// Which form of the driver to build.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    AsIs,
    /// Says on the console which calls it comes to.
    Announcing,
    Mutant(&'a Mutant),
}

fn tell(step: Step) {
    // One line for each of a hundred modules says nothing.
    if !matches!(step, Step::Compile { .. } | Step::WaitingForLock) {
        eprintln!("xtask: {step}");
    }
}

impl Prepared {
    /// Fetches the source and makes the list.
    pub fn new(driver: &'static Driver, cache: &Cache) -> Result<Self, String> {
        let spec = driver.kernel.parse().map_err(|e: kernel::KernelError| e.to_string())?;
        let kernel = kernel::kernel(cache, &spec, false, &tell).map_err(|e| e.to_string())?;
        // All of this kernel's at once: the package is large.
        let paths: Vec<String> = DRIVERS.iter().filter(|d| d.kernel == driver.kernel).flat_map(Driver::paths).collect();
        let wanted: Vec<&str> = paths.iter().map(String::as_str).collect();
        let tree = kernel::source(cache, &kernel, &wanted, &tell).map_err(|e| e.to_string())?.join(driver.folder);
        let read = |name: &&str| {
            let path = tree.join(name);
            fs::read(&path).map(|contents| ((*name).to_owned(), contents)).map_err(|e| format!("{}: {e}", path.display()))
        };
        let headers = driver.headers.iter().map(read).collect::<Result<_, _>>()?;
        let files: Vec<(String, Vec<u8>)> = driver.files.iter().map(read).collect::<Result<_, _>>()?;
        let sources: Vec<(String, Source)> =
            files.into_iter().map(|(name, contents)| (name, Source::new(&String::from_utf8_lossy(&contents)))).collect();
        let table = api::table(&sources);
        let full = |name: &str| format!("{}/{name}", driver.folder);
        let all: Vec<Mutant> = sources.iter().flat_map(|(name, source)| rules::mutants(&full(name), source, &table)).collect();
        let mut left_out: Vec<(&'static str, usize)> = Vec::new();
        let mut mutants = Vec::new();
        for mutant in all {
            match driver.leaves_out(&mutant) {
                None => mutants.push(mutant),
                Some(why) => match left_out.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, count)) => *count += 1,
                    None => left_out.push((why, 1)),
                },
            }
        }
        let lines = |(name, source): &(String, Source)| {
            let lines = api::sites(source, &table).into_iter().flat_map(|site| {
                let first = source.line(site.call.span.start);
                (first..=source.line(site.call.span.end)).map(|line| (full(name), line)).collect::<Vec<_>>()
            });
            lines.collect::<Vec<_>>()
        };
        let calls = sources.iter().flat_map(lines).collect();
        Ok(Self { driver, kernel, sources, headers, table, mutants, left_out, calls })
    }

    /// Release of its kernel.
    pub fn release(&self) -> &str {
        &self.kernel.release
    }

    /// Its kernel as a PC boots it.
    pub fn bzimage(&self) -> &Path {
        &self.kernel.bzimage
    }

    /// Packs a guest as `dmavet run` does: the module, what else the devices need, the workload; and files of the host's.
    pub fn pack(&self, module: &Path, workload: &str, files: &[(&Path, &str)], cache: &Cache, to: &Path) -> Result<(), String> {
        let agent = module::build(cache, &self.kernel, &ModuleSource::agent(), &tell).map_err(|e| e.to_string())?;
        let mut image = Image::new(cache, &self.kernel, &agent.guest_ko, &tell).map_err(|e| e.to_string())?;
        image.module(module, &[]).map_err(|e| e.to_string())?;
        let beside: Vec<String> = self.driver.beside.iter().map(|name| (*name).to_owned()).collect();
        image.in_tree(&beside, &[]).map_err(|e| e.to_string())?;
        image.workload(workload.as_bytes());
        for (from, path) in files {
            image.host_path(from, path).map_err(|e| e.to_string())?;
        }
        let failed = |e: std::io::Error| format!("{}: {e}", to.display());
        let writer = image.write(BufWriter::new(File::create(to).map_err(failed)?)).map_err(failed)?;
        writer.into_inner().map_err(|e| failed(e.into_error()))?;
        Ok(())
    }

    /// Builds one form; the file has the name of the kernel's own module. Modules are kept in `kept`, not in the user's cache.
    pub fn build(&self, form: Form<'_>, kept: &Cache) -> Result<PathBuf, String> {
        let driver = self.driver;
        let mut module = ModuleSource::empty(driver.name, driver.folder);
        for (name, source) in &self.sources {
            let path = format!("{}/{name}", driver.folder);
            let text = match form {
                Form::Announcing => rules::announcing(&path, source, &self.table),
                Form::Mutant(mutant) if mutant.file == path => mutant.apply(source),
                Form::AsIs | Form::Mutant(_) => source.text.clone(),
            };
            module = module.with_file(name, text);
        }
        for (name, contents) in &self.headers {
            module = module.with_file(name, contents.clone());
        }
        let built = module::build(kept, &self.kernel, &module.with_file("Kbuild", kbuild(driver)), &tell).map_err(|e| e.to_string())?;
        Ok(built.ko)
    }
}

/// The makefile of a module of one or several files.
fn kbuild(driver: &Driver) -> String {
    let objects: Vec<String> = driver.files.iter().filter_map(|file| Some(format!("{}.o", file.strip_suffix(".c")?))).collect();
    let own = format!("{}.o", driver.name);
    let parts = if objects == [own.clone()] { String::new() } else { format!("{}-y := {}\n", driver.name, objects.join(" ")) };
    format!("obj-m := {own}\n{parts}ccflags-y := -I$(src)\n")
}

/// The folder modules of this task are kept in.
pub fn kept(work: &Path) -> Result<Cache, String> {
    Cache::open(Some(&work.join("modules"))).map_err(|e| e.to_string())
}
