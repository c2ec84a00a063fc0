//! Development tasks of dmavet: `cargo xtask demo | test | nightly | rules | model | bench | mutants | corpus`.
//!
//! Each task first looks for the tools it needs and, on a Debian-like machine, announces and installs the packages that
//! bring them. Nothing else is changed on the machine.
#![forbid(unsafe_code)]

mod drivers;
mod model;
mod mutants;
mod packages;
mod ratios;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
cargo xtask demo     install, fetch and build what is missing, then run the guided demo
                     (arguments are those of `dmavet demo`)
cargo xtask test     every test: format, lints, unit tests, real guests in the lab
                     (arguments: words in the names of the tests wanted, behind the checks before them)
cargo xtask rules    write docs/rules.md: every rule with what triggers it and what comes near
cargo xtask nightly  the tests with what takes too long for every day, then the model's ten million events
cargo xtask model    random events on the core and on its slow model:
                     --events N (10000000), --seed S (1), --depth D (longer exhaustive histories)
cargo xtask bench    print the figures of the budgets, measured side by side, and whether they hold:
                     core, calls, work, boot, disk (all of them unless named)
cargo xtask corpus   fill fuzz/corpus with what unit tests send, for cargo-fuzz
cargo xtask doctor   say what this machine lacks, change nothing
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    if rest.iter().take_while(|arg| *arg != "--").any(|arg| ["--help", "-h"].contains(&arg.as_str())) {
        help();
        return ExitCode::SUCCESS;
    }
    let result = match task.as_str() {
        "demo" => demo(&rest),
        "test" => test(&rest),
        "rules" => nothing(&rest).and_then(|()| rules()),
        "nightly" => nightly(&rest),
        "model" => model::run(&rest),
        "bench" => bench(&rest),
        "mutants" => mutate(&rest),
        "corpus" => nothing(&rest).and_then(|()| fill(&root().join("fuzz/corpus"))),
        "doctor" => nothing(&rest).and_then(|()| packages::report()),
        "" | "help" | "--help" | "-h" => {
            help();
            return ExitCode::SUCCESS;
        }
        other => Err(format!("there is no task {other:?}\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help() {
    print!("{HELP}{}{}", drivers::HELP, mutants::HELP);
}

/// Refuses the arguments of a task that takes none.
fn nothing(rest: &[String]) -> Result<(), String> {
    rest.first().map_or(Ok(()), |first| Err(format!("{first:?}: this task takes no arguments\n\n{HELP}")))
}

/// Refuses options: what a task does before it comes to whoever would refuse them takes minutes.
fn words(rest: &[String]) -> Result<(), String> {
    let option = rest.iter().find(|arg| arg.starts_with('-'));
    option.map_or(Ok(()), |option| Err(format!("{option:?}: this task takes words in the names of tests, and no options\n\n{HELP}")))
}

/// The workspace's root folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn demo(rest: &[String]) -> Result<(), String> {
    packages::ensure()?;
    let binary = release_binary()?;
    step("dmavet demo", Command::new(binary).arg("demo").args(rest))
}

/// Builds the release binary and returns its path.
fn release_binary() -> Result<PathBuf, String> {
    step("build dmavet", cargo().args(["build", "--release", "--locked", "--package", "dmavet"]))?;
    Ok(target().join("release/dmavet"))
}

/// Cargo's target folder.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn test(rest: &[String]) -> Result<(), String> {
    words(rest)?;
    packages::ensure()?;
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step("lints", cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))?;
    let model = ["test", "--locked", "--package", "dmavet-vmm", "--lib", "--features", "shuttle", "watch::model"];
    step("model of the CPU watch's locks", cargo().args(model))?;
    let inputs = target().join("corpus");
    corpus(&inputs)?;
    let programs = ["check", "--locked", "--package", "dmavet-fuzz", "--bins", "--features", "programs"];
    step("programs for libFuzzer", cargo().args(programs))?;
    attack(&inputs, 4)?;
    step("tests", cargo().args(["test", "--workspace", "--locked", "--"]).args(rest))
}

/// The tests look for the variable themselves: more kernels, more combinations, everything twice.
fn nightly(rest: &[String]) -> Result<(), String> {
    words(rest)?;
    packages::ensure()?;
    let tests = ["test", "--workspace", "--locked", "--no-fail-fast"];
    step("long tests", cargo().args(tests).arg("--").args(rest).env("DMAVET_NIGHTLY", "1"))?;
    model::run(&[])
}

/// The test that compares the table writes it when asked to.
fn rules() -> Result<(), String> {
    let test = ["test", "--locked", "--package", "dmavet", "--test", "guest", "rules::"];
    step("docs/rules.md", cargo().args(test).env("DMAVET_UPDATE", "1"))
}

/// Has the unit tests of agent and trace leave what they send in `folder`.
fn corpus(folder: &Path) -> Result<(), String> {
    let tests = ["test", "--quiet", "--locked", "--package", "dmavet-agent", "--package", "dmavet-trace", "--tests"];
    step("inputs for the fuzz targets", cargo().args(tests).env("DMAVET_CORPUS", folder))
}

/// Fills `folder` for cargo-fuzz and attacks the targets with it.
fn fill(folder: &Path) -> Result<(), String> {
    corpus(folder)?;
    attack(folder, 1)
}

/// Attacks the fuzz targets with what is in `folder`, changed `times` the usual number of times.
fn attack(folder: &Path, times: u32) -> Result<(), String> {
    let tests = ["test", "--locked", "--package", "dmavet-fuzz", "--", "--nocapture", "--test-threads", "1"];
    step("fuzz targets", cargo().args(tests).env("DMAVET_CORPUS", folder).env("DMAVET_FUZZ_CASES", times.to_string()))
}

/// Of drivers unless the core's are asked for.
fn mutate(rest: &[String]) -> Result<(), String> {
    match rest {
        [core, rest @ ..] if core == "core" => mutants::task(&root(), &target(), rest),
        [drivers, rest @ ..] if drivers == "drivers" => driver_mutants(rest),
        rest => driver_mutants(rest),
    }
}

fn driver_mutants(rest: &[String]) -> Result<(), String> {
    packages::ensure()?;
    drivers::task(&root(), &target(), rest, release_binary)
}

/// The parts of the benchmark: the first is the core's own, the others are measured on machines.
const PARTS: [&str; 5] = ["core", "calls", "work", "boot", "disk"];

/// The parts asked for: all, or those named.
fn parts(rest: &[String]) -> Result<Vec<&'static str>, String> {
    if let Some(other) = rest.iter().find(|word| !PARTS.contains(&word.as_str())) {
        return Err(format!("bench: {other:?} is none of {}\n\n{HELP}", PARTS.join(", ")));
    }
    Ok(PARTS.into_iter().filter(|part| rest.is_empty() || rest.iter().any(|word| word == part)).collect())
}

fn bench(rest: &[String]) -> Result<(), String> {
    let mut parts = parts(rest)?;
    packages::ensure()?;
    if parts.first() == Some(&"core") {
        parts.remove(0);
        step("core", cargo().args(["bench", "--locked", "--package", "dmavet-coherence", "--bench", "core"]))?;
        ratios::print(&target())?;
    }
    if parts.is_empty() {
        return Ok(());
    }
    let binary = release_binary()?;
    let machine = ["bench", "--locked", "--package", "dmavet", "--bench", "machine", "--"];
    step("machine", cargo().args(machine).args(parts).env("DMAVET", binary))
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn step(name: &str, command: &mut Command) -> Result<(), String> {
    eprintln!("xtask: {name}");
    let start = Instant::now();
    let status = command.current_dir(root()).status().map_err(|e| format!("{name}: cannot start {:?}: {e}", command.get_program()))?;
    eprintln!("xtask: {name}: {:.0} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{name} failed ({status})")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_benchmark_is_named_or_all_are_meant() {
        assert_eq!(parts(&[]).unwrap(), PARTS);
        assert_eq!(parts(&words_of("disk boot")).unwrap(), ["boot", "disk"], "in the order they are measured");
        for wrong in ["--quick", "disks", "boot 3"] {
            assert!(parts(&words_of(wrong)).unwrap_err().contains("is none of"), "{wrong}");
        }
    }

    #[test]
    fn what_a_task_does_not_take_is_refused_before_it_starts() {
        assert!(nothing(&[]).is_ok() && words(&words_of("dv2 watch")).is_ok());
        assert!(nothing(&words_of("x")).unwrap_err().contains("no arguments"));
        assert!(words(&words_of("dv2 --quick")).unwrap_err().contains("--quick"));
    }
}
