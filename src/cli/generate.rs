//! `dmavet completions` and `dmavet man`: what packages ship beside the program.

use crate::exit::{Exit, Failure};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `dmavet completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the completions for a shell.
///
/// # Errors
/// None today; the type is that of every command.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "dmavet", &mut std::io::stdout());
    Ok(Exit::Clean)
}

/// Arguments of `dmavet man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Where the pages go: dmavet.1 and one for each command
    pub dir: PathBuf,
}

/// Writes the manual pages.
///
/// # Errors
/// When they cannot be written.
pub fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let write = || {
        std::fs::create_dir_all(&args.dir)?;
        clap_mangen::generate_to(super::Cli::command(), &args.dir)
    };
    write().map_err(|e| Failure::usage(format!("cannot write manual pages to {}: {e}", args.dir.display())))?;
    Ok(Exit::Clean)
}
