//! `dmavet list`.

use crate::exit::{Exit, Failure};
use clap::{Args, ValueEnum};
use dmavet_coherence::{FaultKind, FaultSpec, Profile, catalogue};
use dmavet_images::kernel::KernelSpec;

/// Arguments of `dmavet list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    pub what: What,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Device models and their keys
    Devices,
    /// The kernels --kernel knows by name
    Kernels,
    /// The rule catalogue
    Rules,
    /// The machines --profile can name
    Profiles,
    /// Failures that can be injected
    Faults,
    /// The reference driver's variants
    Variants,
}

/// Prints a list.
///
/// # Errors
/// None today; the type is that of every command.
pub fn list(args: &ListArgs) -> Result<Exit, Failure> {
    match args.what {
        What::Devices => {
            for model in dmavet_devices::models() {
                println!("{:<14} {}", model.name, model.summary);
                for key in model.keys {
                    println!("    {:<12} {}: {} (default {})", format!("{}=", key.name), key.help, key.values, key.default);
                }
            }
        }
        What::Kernels => {
            for (spec, purpose) in KernelSpec::named() {
                println!("{:<20} {purpose}", spec.to_string());
            }
        }
        What::Rules => {
            for rule in catalogue::rules() {
                let state = if rule.checked { "" } else { "  (not checked yet)" };
                println!("{}  {:<24} {:<8} {}{state}", rule.code, rule.slug, rule.severity.name(), rule.rule);
            }
        }
        What::Profiles => {
            for profile in Profile::ALL {
                println!("{:<10} {}", profile.name(), profile.machine().summary);
            }
        }
        What::Faults => {
            for (kind, help) in FaultKind::ALL {
                println!("{:<10} {help}", kind.name());
            }
            for (key, help) in FaultSpec::KEYS {
                println!("    {:<12} {help}", format!("{key}="));
            }
        }
        What::Variants => {
            for variant in dmavet_images::sources::variants() {
                println!("ref:ncdma/{:<28} {}", variant.name, variant.summary);
            }
        }
    }
    Ok(Exit::Clean)
}
