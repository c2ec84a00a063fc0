//! dmavet: vets Linux drivers for the DMA API rules that only non-coherent machines enforce.

mod campaign;
mod cli;
mod exit;
mod lab;
mod report;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("dmavet: {failure}");
            failure.exit.into()
        }
    }
}
