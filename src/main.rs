//! The command line, thin.

use std::process::ExitCode;

fn main() -> ExitCode {
    migrans::cli::main()
}
