//! `cargo xtask model`: the core against its slow model, for as long as one asks.

use crate::{cargo, step};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    events: u64,
    seed: u64,
    /// Events by which the exhaustive histories are longer than in the ordinary tests; `None`: they are not played.
    depth: Option<u64>,
}

fn parse(rest: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { events: 10_000_000, seed: 1, depth: None };
    let mut args = rest.iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), args.next().cloned()),
        };
        let number = || value.as_deref().and_then(|v| v.parse::<u64>().ok()).ok_or_else(|| format!("{name} takes a number"));
        match name {
            "--events" => asked.events = number()?,
            "--seed" => asked.seed = number()?,
            "--depth" => asked.depth = Some(number()?),
            other => return Err(format!("model: there is no option {other:?}; --events N, --seed S, --depth D")),
        }
    }
    Ok(asked)
}

pub fn run(rest: &[String]) -> Result<(), String> {
    let Asked { events, seed, depth } = parse(rest)?;
    let test = ["test", "--release", "--locked", "--package", "dmavet-coherence", "--lib", "--"];
    if let Some(depth) = depth {
        let mut exhaustive = cargo();
        exhaustive.args(test).args(["tests::exhaustive", "--nocapture"]).env("DMAVET_MODEL_DEPTH", depth.to_string());
        step("every short history", &mut exhaustive)?;
    }
    let mut random = cargo();
    random.args(test).args(["tests::long::many_events", "--exact", "--ignored", "--nocapture"]);
    random.env("DMAVET_MODEL_EVENTS", events.to_string()).env("DMAVET_MODEL_SEED", seed.to_string());
    step("random histories", &mut random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_numbers() {
        let args = |words: &[&str]| parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(args(&[]).unwrap(), Asked { events: 10_000_000, seed: 1, depth: None });
        assert_eq!(args(&["--seed=7", "--events", "9", "--depth", "1"]).unwrap(), Asked { events: 9, seed: 7, depth: Some(1) });
        assert!(args(&["--events"]).unwrap_err().contains("takes a number"));
        assert!(args(&["--evnts", "3"]).unwrap_err().contains("no option"));
    }
}
