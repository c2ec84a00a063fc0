//! From the arguments of `dmavet run` to a plan.

use crate::cli::{RunArgs, SgPolicy};
use crate::exit::Failure;
use crate::progress;
use crate::run::{Limits, Plan, PlanModule, Policy, Show, accept, host, rundir};
use dmavet_coherence::FaultSpec;
use dmavet_devices::DeviceSpec;
use dmavet_images::cache::{Cache, CacheError};
use dmavet_images::initramfs::{Image, ImageError};
use dmavet_images::kernel::{self, KernelError, KernelFiles, KernelSpec};
use dmavet_images::module::{self, BuildError, BuiltModule, ModuleSource};
use dmavet_images::progress::Step;
use dmavet_images::sources;
use dmavet_vmm::VmConfig;
use std::collections::BTreeSet;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// The reference driver's prefix in `--module`.
pub(super) const REFERENCE: &str = "ref:ncdma";

/// Prepares one run: fetches and builds what is missing, packs the initramfs, and writes the plan into the run directory.
///
/// # Errors
/// A [`Failure`] with the user's mistake or what this machine lacks.
pub fn prepare(args: &RunArgs, cache: Option<&Path>, command: Vec<String>, show: &Show) -> Result<Plan, Failure> {
    let spec = kernel_spec(args)?;
    let devices = devices(args)?;
    faults(args)?;
    let modules = args.modules.iter().map(|m| Wanted::parse(m, &spec)).collect::<Result<Vec<_>, _>>()?;
    let workload = workload(args, &devices)?;
    let machine = args.machine.plan()?;
    let baseline = accept::baseline(args)?;

    let cache = Cache::open(cache).map_err(|e| cache_failure(&e))?;
    let quiet = show.quiet;
    let tell = move |step: Step| {
        if !quiet {
            progress::step(&step.to_string());
        }
    };
    let kernel = kernel::kernel(&cache, &spec, false, &tell).map_err(kernel_failure)?;
    let agent = module::build(&cache, &kernel, &ModuleSource::agent(), &tell).map_err(build_failure)?;
    let mut image = Image::new(&cache, &kernel, &agent.guest_ko, &tell).map_err(image_failure)?;
    let mut planned = vec![PlanModule { name: agent.name.clone(), debug: agent.ko, under_test: false }];
    for wanted in &modules {
        planned.push(add_module(wanted, &cache, &kernel, &mut image, &tell)?);
    }
    for name in drivers(&devices, &kernel, &spec)? {
        if planned.iter().all(|m| m.name != name) {
            planned.push(add_module(&Wanted::InTree(name), &cache, &kernel, &mut image, &tell)?);
        }
    }
    add_needed(&image, &kernel, &mut planned)?;
    image.workload(&workload);

    // Past the `quiet` on every guest's command line.
    let loud = (args.verbose > 1).then(|| "ignore_loglevel".to_owned());
    let append = args.append.iter().cloned().chain(loud).collect();
    let run_dir = rundir::create(args.run_dir.as_deref())?;
    let initrd = run_dir.join("initramfs.cpio");
    write_image(&image, &initrd)?;
    let plan = Plan {
        version: Plan::VERSION,
        command,
        title: title(args, &devices),
        kernel: kernel.vmlinux.clone(),
        release: kernel.release.clone(),
        initrd,
        append,
        memory: u64::from(args.memory) << 20,
        cpus: args.cpus,
        devices: devices.iter().map(DeviceSpec::to_string).collect(),
        agent: true,
        faults: args.faults.clone(),
        modules: planned,
        machine,
        sg_merge: args.sg == SgPolicy::Merge,
        watch: args.watch.plan(),
        record: args.record,
        limits: Limits { boot: args.boot_timeout, command: args.timeout, silence: args.silence_timeout },
        stop_on: args.stop_on.clone(),
        policy: Policy { fail_on: args.fail_on, pedantic: args.pedantic, require_coverage: args.require_coverage },
        baseline,
        run_dir,
    };
    plan.save()?;
    Ok(plan)
}

/// Refuses failures that make no sense.
pub(super) fn faults(args: &RunArgs) -> Result<(), Failure> {
    let check = |fault: &String| fault.parse::<FaultSpec>().map(|_| ()).map_err(|e| Failure::usage(format!("--fault {e}")));
    args.faults.iter().try_for_each(check)
}

/// The modules as the user named them, files without their folder; else the devices whose drivers are the kernel's own.
pub(super) fn title(args: &RunArgs, devices: &[DeviceSpec]) -> String {
    if args.modules.is_empty() {
        let driven = devices.iter().filter(|d| !d.info().drivers.is_empty());
        let names = driven.map(DeviceSpec::name).collect::<Vec<_>>().join(", ");
        return if names.is_empty() { "no module".into() } else { names };
    }
    let name = |m: &String| if m.starts_with(REFERENCE) { m.clone() } else { m.rsplit('/').next().unwrap_or(m).to_owned() };
    args.modules.iter().map(name).collect::<Vec<_>>().join(", ")
}

pub(super) fn workload(args: &RunArgs, devices: &[DeviceSpec]) -> Result<Vec<u8>, Failure> {
    if let Some(script) = &args.script {
        return std::fs::read(script).map_err(|e| Failure::usage(format!("cannot read the script {}: {e}", script.display())));
    }
    if !args.command.is_empty() {
        let line =
            shlex::try_join(args.command.iter().map(String::as_str)).map_err(|_| Failure::usage("the command holds a NUL character"))?;
        return Ok(format!("exec {line}\n").into_bytes());
    }
    let reference = args.modules.iter().any(|m| m.starts_with(REFERENCE)).then(sources::reference_workload);
    let models: BTreeSet<&str> = devices.iter().map(DeviceSpec::name).collect();
    let mut scripts: Vec<&[u8]> = reference.into_iter().collect();
    for script in models.into_iter().filter_map(sources::device_workload) {
        // Several models may share one, which then looks after the devices of all.
        if !scripts.contains(&script) {
            scripts.push(script);
        }
    }
    match scripts.as_slice() {
        [] => {
            Err(Failure::usage("what shall the guest do? Name a script with --script FILE or a command after --, or write a dmavet.toml"))
        }
        [script] => Ok(script.to_vec()),
        // Each in a shell of its own, all of them whatever the others say.
        several => {
            let mut whole = b"status=0\n".to_vec();
            for script in several {
                whole.extend_from_slice(b"(\n");
                whole.extend_from_slice(script);
                whole.extend_from_slice(b"\n) || status=1\n");
            }
            whole.extend_from_slice(b"exit $status\n");
            Ok(whole)
        }
    }
}

/// Device specifications, checked; the reference driver brings its device along.
pub(super) fn devices(args: &RunArgs) -> Result<Vec<DeviceSpec>, Failure> {
    let mut devices = args.devices.clone();
    if devices.is_empty() && args.modules.iter().any(|m| m.starts_with(REFERENCE)) {
        devices.push("ncdma".into());
    }
    let devices = devices.iter().map(|device| parse_device(device)).collect::<Result<Vec<_>, _>>()?;
    VmConfig::check_devices(&devices).map_err(|e| host::explain(&e))?;
    Ok(devices)
}

/// One specification; a file in it gets its whole path, because the run may be executed elsewhere.
fn parse_device(text: &str) -> Result<DeviceSpec, Failure> {
    let wrong = |e: String| Failure::usage(format!("--device {text}: {e}"));
    let mut spec: DeviceSpec = text.parse().map_err(|e: dmavet_devices::SpecError| wrong(e.to_string()))?;
    let Some(disk) = spec.disk_mut() else { return Ok(spec) };
    let Some(file) = disk.file().map(Path::to_path_buf) else { return Ok(spec) };
    disk.open().map_err(|e| wrong(e.to_string()))?;
    let file = std::path::absolute(&file).map_err(|e| wrong(e.to_string()))?;
    // The plan is text: a path that is not, or that would read as another key, cannot stand in it.
    if file.to_str().is_none_or(|path| path.contains(',')) {
        return Err(wrong(format!("the path {} has a comma or is not UTF-8", file.display())));
    }
    disk.set_file(file);
    Ok(spec)
}

/// The kernel's own modules that drive the devices, as far as they are not built in.
///
/// # Errors
/// The kernel has no such driver, and lists what is built into it.
pub(super) fn drivers(devices: &[DeviceSpec], kernel: &KernelFiles, spec: &KernelSpec) -> Result<Vec<String>, Failure> {
    let tree = kernel.modules().map_err(kernel_failure)?;
    let config = kernel.configuration();
    let mut names: Vec<String> = Vec::new();
    for (device, name) in devices.iter().flat_map(|d| d.info().drivers.iter().map(move |name| (d.name(), *name))) {
        if tree.file(name).is_some() {
            if names.iter().all(|n| n != name) {
                names.push(name.to_owned());
            }
        } else if !tree.is_builtin(name) {
            let lack = config.as_ref().and_then(|config| config.driver_lacks(name)).map(|lack| format!(": {lack}"));
            // What is no module of a kernel that lists nothing as built in may be built in: the run will tell.
            if lack.is_some() || tree.lists_builtin() {
                let more = spec.with_more_drivers().map(|other| format!("; --kernel {other} may have it")).unwrap_or_default();
                return Err(Failure::usage(format!(
                    "--device {device}: {} has no driver {name}{}{more}",
                    kernel.name,
                    lack.unwrap_or_default()
                )));
            }
        }
    }
    Ok(names)
}

pub(super) fn kernel_spec(args: &RunArgs) -> Result<KernelSpec, Failure> {
    let spec: KernelSpec = args.kernel.parse().map_err(kernel_failure)?;
    match spec {
        KernelSpec::Own { image, .. } => {
            if !image.exists() {
                return Err(Failure::usage(format!(
                    "--kernel {}: there is no such file; name a bzImage, a vmlinux or a build tree, or debian:6.1 for a kernel from the archive",
                    image.display()
                )));
            }
            Ok(KernelSpec::Own { image, modules: args.modules_dir.clone(), build: args.headers.clone() })
        }
        spec if args.modules_dir.is_some() || args.headers.is_some() => {
            Err(Failure::usage(format!("--modules-dir and --headers go with a kernel of your own, not with {spec}")))
        }
        spec => Ok(spec),
    }
}

/// The source of a reference driver that `--module` names so: it travels inside the program.
#[must_use]
pub fn reference_source(module: &str) -> Option<ModuleSource> {
    match Wanted::parse(module, &KernelSpec::default()).ok()? {
        Wanted::Reference => Some(ModuleSource::ncdma()),
        Wanted::Variant(name) => ModuleSource::ncdma_variant(&name).ok(),
        Wanted::File(_) | Wanted::InTree(_) => None,
    }
}

/// What one `--module` means.
pub(super) enum Wanted {
    /// The reference driver.
    Reference,
    /// A variant of it.
    Variant(String),
    /// A file.
    File(PathBuf),
    /// A module of the kernel's own.
    InTree(String),
}

impl Wanted {
    pub(super) fn parse(text: &str, kernel: &KernelSpec) -> Result<Self, Failure> {
        if text == REFERENCE {
            return Ok(Self::Reference);
        }
        if let Some(variant) = text.strip_prefix(REFERENCE).and_then(|rest| rest.strip_prefix('/')) {
            if sources::variant(variant).is_none() {
                return Err(Failure::usage(format!("--module {text}: there is no variant {variant}; see dmavet list variants")));
            }
            return Ok(Self::Variant(variant.into()));
        }
        if text.contains('/') || text.contains(".ko") {
            let mut path = PathBuf::from(text);
            if let (false, KernelSpec::Own { image, .. }) = (path.is_file(), kernel) {
                // `drivers/net/my.ko` names a module of the build tree wherever one stands.
                path = Some(image.join(text)).filter(|inside| inside.is_file()).unwrap_or(path);
            }
            if !path.is_file() {
                return Err(Failure::usage(format!("--module {text}: there is no such file")));
            }
            let path = std::path::absolute(&path).map_err(|e| Failure::usage(format!("--module {text}: {e}")))?;
            return Ok(Self::File(path));
        }
        Ok(Self::InTree(text.into()))
    }
}

fn add_module(
    wanted: &Wanted,
    cache: &Cache,
    kernel: &KernelFiles,
    image: &mut Image<'_>,
    tell: &dyn Fn(Step),
) -> Result<PlanModule, Failure> {
    let mut built = |source: &ModuleSource| -> Result<PlanModule, Failure> {
        let BuiltModule { name, ko, guest_ko, .. } = module::build(cache, kernel, source, tell).map_err(build_failure)?;
        image.module(&guest_ko, &[]).map_err(image_failure)?;
        Ok(PlanModule { name, debug: ko, under_test: true })
    };
    match wanted {
        Wanted::Reference => built(&ModuleSource::ncdma()),
        Wanted::Variant(name) => built(&ModuleSource::ncdma_variant(name).map_err(build_failure)?),
        Wanted::File(path) => {
            image.module(path, &[]).map_err(|e| match e {
                ImageError::Module(e) => Failure::usage(format!("--module {}: {e}", path.display())),
                e => image_failure(e),
            })?;
            Ok(PlanModule { name: crate::report::symbols::module_name(path), debug: path.clone(), under_test: true })
        }
        Wanted::InTree(name) => {
            image.in_tree(std::slice::from_ref(name), &[]).map_err(image_failure)?;
            let tree = kernel.modules().map_err(kernel_failure)?;
            let file = tree.file(name).ok_or_else(|| no_module(name, kernel))?;
            Ok(PlanModule { name: dmavet_images::modinfo::normal(name), debug: file.to_path_buf(), under_test: true })
        }
    }
}

/// A kernel that has no such module.
pub(super) fn no_module(name: &str, kernel: &KernelFiles) -> Failure {
    let text = format!("--module {name}: kernel {} has it built in, or not at all; only modules can be checked so", kernel.release);
    Failure::usage(text)
}

/// The modules the ones under test need, whose code may be on a call stack.
fn add_needed(image: &Image<'_>, kernel: &KernelFiles, planned: &mut Vec<PlanModule>) -> Result<(), Failure> {
    let tree = kernel.modules().map_err(kernel_failure)?;
    for name in image.module_names() {
        if planned.iter().all(|m| m.name != name)
            && let Some(file) = tree.file(name)
        {
            planned.push(PlanModule { name: name.to_owned(), debug: file.to_path_buf(), under_test: false });
        }
    }
    Ok(())
}

fn write_image(image: &Image<'_>, path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| rundir::explain(path, &e);
    let file = std::fs::File::create(path).map_err(failed)?;
    let writer = image.write(BufWriter::new(file)).map_err(failed)?;
    writer.into_inner().map_err(|e| failed(e.into_error()))?;
    Ok(())
}

pub(super) fn cache_failure(error: &CacheError) -> Failure {
    Failure::cannot_run(error.to_string())
}

pub(super) fn kernel_failure(error: KernelError) -> Failure {
    match error {
        KernelError::UnknownName(_)
        | KernelError::Read { .. }
        | KernelError::NoRelease(_)
        | KernelError::Image { .. }
        | KernelError::Tree(_) => Failure::usage(error.to_string()),
        e => Failure::cannot_run(e.to_string()),
    }
}

fn build_failure(error: BuildError) -> Failure {
    match error {
        e @ BuildError::NoHeaders(_) => Failure::usage(e.to_string()),
        BuildError::Kernel(e) => kernel_failure(e),
        e => Failure::cannot_run(e.to_string()),
    }
}

fn image_failure(error: ImageError) -> Failure {
    match error {
        ImageError::Kernel(e) => kernel_failure(e),
        e => Failure::usage(e.to_string()),
    }
}
