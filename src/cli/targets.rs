//! `dmavet.toml`: named runs, with the options of `dmavet run` as keys.
//!
//! A target becomes the words one would type, and those are parsed by the very parser of the command line: keys, values and their
//! checks are the options' own.

use crate::cli::run::RunArgs;
use crate::exit::Failure;
use crate::place;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, Parser};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The file `dmavet run` looks for.
pub const FILE: &str = "dmavet.toml";

/// Table of what all targets have, and the table of targets.
const DEFAULTS: &str = "defaults";
const TARGET: &str = "target";

/// Key of the command after `--`.
const COMMAND: &str = "command";

/// Options about the whole of what is typed: they choose among targets, or say what is shown.
const NOT_KEYS: [&str; 8] = ["target", "config", "dry-run", "baseline-write", "bisect", "format", "quiet", "verbose"];

/// Options that say what is to be run: with one of them no file is looked for.
const WHAT: [&str; 4] = ["module", "device", "script", COMMAND];

/// A run to be made.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name, for one from a file.
    pub name: Option<String>,
    /// Its arguments.
    pub args: RunArgs,
    /// The command line that makes the same run.
    pub command: Vec<String>,
}

#[derive(Debug, Parser)]
#[command(name = "dmavet run", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: RunArgs,
}

/// Values by option: those of a repeatable one, the only one of another, none of a switch that is on.
type Options = BTreeMap<String, Vec<OsString>>;

/// The runs a command line asks for: that of its own options, or targets of a file, in which its options win.
///
/// # Errors
/// When the file is wrong, or has no such target.
pub fn select(args: &RunArgs, matches: &ArgMatches) -> Result<Vec<Target>, Failure> {
    let given = given(matches);
    let named = !args.target.is_empty() || args.config.is_some();
    let what = WHAT.iter().any(|key| given.contains_key(*key));
    let path = args.config.clone().unwrap_or_else(|| FILE.into());
    if !named && (what || !path.is_file()) {
        let command = std::env::args_os().map(|a: OsString| a.to_string_lossy().into_owned()).collect();
        return Ok(vec![Target { name: None, args: args.clone(), command }]);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::usage(format!("cannot read the targets in {}: {e}", path.display())))?;
    let file = File { path: &path, text: &text };
    let mut targets = file.read(&given)?;
    for wanted in &args.target {
        if targets.iter().all(|target| target.name.as_ref() != Some(wanted)) {
            let names: Vec<&str> = targets.iter().filter_map(|target| target.name.as_deref()).collect();
            return Err(Failure::usage(format!("{} has no target {wanted:?}; it has {}", path.display(), names.join(", "))));
        }
    }
    targets.retain(|target| args.target.is_empty() || target.name.as_ref().is_some_and(|name| args.target.contains(name)));
    for target in &mut targets {
        let RunArgs { baseline_write, bisect, format, quiet, verbose, .. } = args;
        (target.args.baseline_write, target.args.bisect, target.args.format) = (*baseline_write, *bisect, *format);
        (target.args.quiet, target.args.verbose) = (*quiet, *verbose);
    }
    Ok(targets)
}

/// The options of a command line as they were typed.
fn given(matches: &ArgMatches) -> Options {
    let command = Line::command();
    let typed = command.get_arguments().filter(|arg| {
        // What clap adds itself (--help) is not among the matches.
        let id = arg.get_id().as_str();
        matches.try_contains_id(id).is_ok_and(|there| there) && matches.value_source(id) == Some(ValueSource::CommandLine)
    });
    typed
        .map(|arg| {
            let values = matches.get_raw(arg.get_id().as_str()).into_iter().flatten().map(OsStr::to_owned);
            (key(arg), if takes_value(arg) { values.collect() } else { Vec::new() })
        })
        .filter(|(key, _)| !NOT_KEYS.contains(&key.as_str()))
        .collect()
}

fn key(arg: &clap::Arg) -> String {
    arg.get_long().unwrap_or(COMMAND).to_owned()
}

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The words of a command line: the command after all options.
fn words(options: &Options) -> Vec<OsString> {
    let mut words = Vec::new();
    for (key, values) in options.iter().filter(|(key, _)| *key != COMMAND) {
        let option = OsString::from(format!("--{key}"));
        if values.is_empty() {
            words.push(option);
            continue;
        }
        for value in values {
            if !value.as_encoded_bytes().starts_with(b"-") {
                words.extend([option.clone(), value.clone()]);
                continue;
            }
            // In one word: it would be taken for an option.
            let mut word = option.clone();
            word.push("=");
            word.push(value);
            words.push(word);
        }
    }
    if let Some(command) = options.get(COMMAND) {
        words.push("--".into());
        words.extend(command.iter().cloned());
    }
    words
}

/// A file of targets.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// A mistake at a place in the file.
    fn wrong(&self, at: Range<usize>, what: impl std::fmt::Display) -> Failure {
        place::wrong(self.path, self.text, at, what)
    }

    fn read(&self, given: &Options) -> Result<Vec<Target>, Failure> {
        let document = DeTable::parse(self.text).map_err(|e| place::not_toml(self.path, self.text, &e))?;
        let mut defaults = Options::new();
        let mut tables = Vec::new();
        for (name, value) in document.get_ref() {
            match &**name.get_ref() {
                DEFAULTS => defaults = self.options(self.table(value)?)?,
                TARGET => tables.extend(self.table(value)?),
                other => {
                    let what = format!("unknown table or key {other:?}: there are [{DEFAULTS}] and [{TARGET}.NAME]");
                    return Err(self.wrong(name.span(), what));
                }
            }
        }
        if tables.is_empty() {
            return Err(Failure::usage(format!("{} has no target: write [{TARGET}.NAME] and the options below it", self.path.display())));
        }
        let target = |(name, value): (&Spanned<toml::de::DeString<'_>>, &Spanned<DeValue<'_>>)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
            if !name.get_ref().chars().all(plain) || name.get_ref().starts_with('.') || name.get_ref().is_empty() {
                let what = format!("target {:?}: a name has letters, digits, dashes, underscores and dots", name.get_ref());
                return Err(self.wrong(name.span(), what));
            }
            self.target(name, &defaults, self.options(self.table(value)?)?, given)
        };
        tables.into_iter().map(target).collect()
    }

    fn target(&self, name: &Spanned<toml::de::DeString<'_>>, defaults: &Options, own: Options, given: &Options) -> Result<Target, Failure> {
        let mut options = Options::new();
        for layer in [defaults, &own, given] {
            // A script and a command are two ways to say the same thing.
            for (one, other) in [("script", COMMAND), (COMMAND, "script")] {
                if layer.contains_key(one) && !layer.contains_key(other) {
                    options.remove(other);
                }
            }
            options.extend(layer.iter().map(|(key, values)| (key.clone(), values.clone())));
        }
        let words = words(&options);
        let args =
            Line::try_parse_from(&words).map_err(|e| self.wrong(name.span(), format!("target {}: {}", name.get_ref(), plain(&e))))?.args;
        let typed = words.iter().map(|word| word.to_string_lossy().into_owned());
        let command = ["dmavet".to_owned(), "run".to_owned()].into_iter().chain(typed).collect();
        Ok(Target { name: Some(name.get_ref().to_string()), args, command })
    }

    fn table<'t, 'i>(&self, value: &'t Spanned<DeValue<'i>>) -> Result<&'t DeTable<'i>, Failure> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(value.span(), "a table is wanted here")),
        }
    }

    /// The options of a table, each checked for itself, so that a mistake is told where it stands.
    fn options(&self, table: &DeTable<'_>) -> Result<Options, Failure> {
        let command = Line::command();
        let mut options = Options::new();
        for (name, value) in table {
            let Some(arg) = command.get_arguments().find(|arg| key(arg) == **name.get_ref() && arg.get_id() != "help") else {
                let what = format!("unknown key {:?}: keys are the options of dmavet run (see dmavet run --help)", name.get_ref());
                return Err(self.wrong(name.span(), what));
            };
            let key = key(arg);
            if NOT_KEYS.contains(&key.as_str()) {
                return Err(self.wrong(name.span(), format!("{key} belongs on the command line, not in a target")));
            }
            if !takes_value(arg) {
                match value.get_ref() {
                    DeValue::Boolean(true) => _ = options.insert(key, Vec::new()),
                    DeValue::Boolean(false) => {}
                    _ => return Err(self.wrong(value.span(), format!("{key} is true or false"))),
                }
                continue;
            }
            let several = key == COMMAND || matches!(arg.get_action(), ArgAction::Append);
            let values = self.values(&key, several, value)?;
            let alone = Options::from([(key.clone(), values.clone())]);
            if let Err(error) = Line::try_parse_from(words(&alone)) {
                return Err(self.wrong(value.span(), plain(&error)));
            }
            options.insert(key, values);
        }
        Ok(options)
    }

    fn values(&self, key: &str, several: bool, value: &Spanned<DeValue<'_>>) -> Result<Vec<OsString>, Failure> {
        match value.get_ref() {
            DeValue::String(text) if key != COMMAND => Ok(vec![self.rebase(key, text)]),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                let number = i128::from_str_radix(&digits, number.radix()).map_err(|e| self.wrong(value.span(), e))?;
                Ok(vec![number.to_string().into()])
            }
            DeValue::Array(items) if several && !items.is_empty() => {
                let item = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                    DeValue::String(text) => Ok(self.rebase(key, text)),
                    _ => Err(self.wrong(item.span(), format!("{key} is a list of strings"))),
                };
                items.iter().map(item).collect()
            }
            _ if key == COMMAND => Err(self.wrong(value.span(), format!("{key} is a list of words, as [\"sh\", \"-c\", \"...\"]"))),
            _ if several => Err(self.wrong(value.span(), format!("{key} is a string or a list of strings"))),
            _ => Err(self.wrong(value.span(), format!("{key} is a string or a number"))),
        }
    }

    /// A path in the file is meant from where the file is.
    fn rebase(&self, key: &str, text: &str) -> OsString {
        let base = self.path.parent().unwrap_or_else(|| Path::new(""));
        if base.as_os_str().is_empty() {
            return text.into();
        }
        let there = base.join(text);
        match key {
            "modules-dir" | "headers" | "script" | "run-dir" | "baseline" => there.into(),
            // Names of kernels and modules look much like files.
            "kernel" | "module" if there.exists() => there.into(),
            "device" => {
                let part = |part: &str| match part.strip_prefix("file=") {
                    Some(file) => format!("file={}", base.join(file).display()),
                    None => part.to_owned(),
                };
                text.split(',').map(part).collect::<Vec<_>>().join(",").into()
            }
            _ => text.into(),
        }
    }
}

/// What clap has to say, in one paragraph and without its hints about usage.
fn plain(error: &clap::Error) -> String {
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or_default().split("\n\nFor more").next().unwrap_or_default();
    let lines: Vec<&str> = said.trim().trim_start_matches("error: ").lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests;
