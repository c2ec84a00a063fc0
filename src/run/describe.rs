//! What a run would be, without making it (`--dry-run`).

use crate::cli::RunArgs;
use crate::exit::Failure;
use crate::run::prepare::{self, REFERENCE, Wanted};
use crate::run::{accept, host};
use dmavet_devices::DeviceSpec;
use dmavet_images::cache::Cache;
use dmavet_images::kernel::{self, KernelFiles, KernelSpec};
use dmavet_images::modinfo::ModInfo;
use dmavet_images::modtree;
use std::path::{Path, PathBuf};

/// A run in words: kernel, modules, devices, workload, where, and the command line. Nothing is fetched or built.
///
/// # Errors
/// The mistakes that would keep the run from being prepared, as far as they show without fetching and building.
pub fn describe(name: Option<&str>, args: &RunArgs, command: &[String], cache: Option<&Path>) -> Result<String, Failure> {
    let spec = prepare::kernel_spec(args)?;
    let devices = prepare::devices(args)?;
    prepare::faults(args)?;
    prepare::workload(args, &devices)?;
    args.machine.plan()?;
    let baseline = accept::baseline(args)?;
    let wanted = args.modules.iter().map(|m| Wanted::parse(m, &spec)).collect::<Result<Vec<_>, _>>()?;
    let cache = Cache::open(cache).map_err(|e| prepare::cache_failure(&e))?;
    let kernel = at_hand(&cache, &spec)?;
    let place = host::choose(args.host)?;

    let mut lines = vec![format!("{}:", name.map_or_else(|| prepare::title(args, &devices), |name| format!("target {name}")))];
    let mut line = |what: &str, text: String| lines.push(format!("  {what:<10} {text}"));
    match &kernel {
        Some(kernel) => line("kernel", format!("{}, Linux {} ({})", kernel.name, kernel.release, kernel.bzimage.display())),
        None => line("kernel", format!("{spec}, not in the cache yet")),
    }
    for (dir, what) in
        [(kernel.as_ref().and_then(|k| k.modules_dir.as_ref()), "modules"), (kernel.as_ref().and_then(|k| k.headers.as_ref()), "headers")]
    {
        if let Some(dir) = dir {
            line(what, dir.display().to_string());
        }
    }
    for (text, wanted) in args.modules.iter().zip(&wanted) {
        line("module", module(text, wanted, kernel.as_ref())?);
    }
    if let Some(kernel) = &kernel {
        for name in prepare::drivers(&devices, kernel, &spec)? {
            line("module", format!("{name}, the kernel's driver of a device"));
        }
    }
    for device in &devices {
        line("device", device.to_string());
    }
    for fault in &args.faults {
        line("fault", fault.clone());
    }
    line("workload", workload(args, &devices));
    if let Some(baseline) = &baseline {
        line("baseline", format!("{}, {} entries", baseline.file.display(), baseline.entries.len()));
    }
    line("where", if place == host::Place::Here { "on this machine's KVM".into() } else { "in the lab".into() });
    line("command", shlex::try_join(command.iter().map(String::as_str)).unwrap_or_default());
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// The kernel, if nothing has to be fetched for it.
fn at_hand(cache: &Cache, spec: &KernelSpec) -> Result<Option<KernelFiles>, Failure> {
    kernel::at_hand(cache, spec, &|_| ()).map_err(prepare::kernel_failure)
}

fn module(text: &str, wanted: &Wanted, kernel: Option<&KernelFiles>) -> Result<String, Failure> {
    let wrong = |e: String| Failure::usage(format!("--module {text}: {e}"));
    match wanted {
        Wanted::Reference | Wanted::Variant(_) => Ok(format!("{text}, built for that kernel")),
        Wanted::File(path) => {
            let bytes = modtree::read_module(path).map_err(|e| wrong(e.to_string()))?;
            let info = ModInfo::parse(&bytes).map_err(|e| wrong(e.to_string()))?;
            if let Some(kernel) = kernel {
                info.check_release(&crate::report::symbols::module_name(path), &kernel.release).map_err(|e| wrong(e.to_string()))?;
            }
            Ok(path.display().to_string())
        }
        Wanted::InTree(name) => {
            let Some(kernel) = kernel else { return Ok(format!("{name}, of that kernel")) };
            Ok(in_tree(name, kernel)?.display().to_string())
        }
    }
}

fn in_tree(name: &str, kernel: &KernelFiles) -> Result<PathBuf, Failure> {
    let tree = kernel.modules().map_err(prepare::kernel_failure)?;
    tree.file(name).map(Path::to_path_buf).ok_or_else(|| prepare::no_module(name, kernel))
}

fn workload(args: &RunArgs, devices: &[DeviceSpec]) -> String {
    if let Some(script) = &args.script {
        return script.display().to_string();
    }
    if !args.command.is_empty() {
        return shlex::try_join(args.command.iter().map(String::as_str)).unwrap_or_default();
    }
    if args.modules.iter().any(|m| m.starts_with(REFERENCE)) {
        return "the reference driver's self-test".into();
    }
    let names: Vec<&str> = devices.iter().map(DeviceSpec::name).collect();
    format!("the one dmavet brings for {}", names.join(", "))
}
