//! `dmavet explain`.

use crate::exit::{Exit, Failure};
use clap::Args;
use dmavet_coherence::catalogue;

/// Arguments of `dmavet explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Code or slug of a rule: DV201 or missing-sync-for-device
    pub rule: String,
}

/// Prints one rule.
///
/// # Errors
/// When there is no such rule.
pub fn explain(args: &ExplainArgs) -> Result<Exit, Failure> {
    let wanted = args.rule.trim();
    let Some(rule) = catalogue::rules().find(|r| r.code.to_string().eq_ignore_ascii_case(wanted) || r.slug == wanted) else {
        return Err(Failure::usage(format!("there is no rule {wanted:?}; `dmavet list rules` shows all of them")));
    };
    print!("{}", crate::report::text::rule(rule));
    Ok(Exit::Clean)
}
