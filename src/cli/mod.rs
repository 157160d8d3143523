//! The command line.
//!
//! Exit codes: 0 done, 1 failed (or `verify` found a difference), 2 wrong usage or a bad pipeline file, 3 `verify` could not
//! compare everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::dataflow::run::Until;
use crate::error::Error;
use crate::failpoint;
use crate::logging;
use crate::milvus::tso::Tso;
use crate::pipeline::{Select, units};

mod check;
mod checkpoint;
mod import_cdc_config;
mod remove;
mod run;
mod serve;
mod signals;
mod tail;
mod verify;

/// Change data capture and bulk migration for Milvus, each change exactly once.
#[derive(Debug, Parser)]
#[command(name = "migrans", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines look (they go to standard error)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "MIGRANS_LOG_FORMAT")]
    log_format: LogFormat,
    /// The least severe log lines to show: error, warn, info, debug or trace
    #[arg(long, global = true, default_value = "info", env = "MIGRANS_LOG_LEVEL")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline, from where it last stopped
    Run {
        /// The pipeline file
        pipeline: PathBuf,
        /// Stop by itself: at `caught-up`, once everything that is in the source's log now is applied, or at an RFC
        /// 3339 time or a Milvus timestamp, once everything up to that is applied and nothing later
        #[arg(long, value_parser = parse_until, default_value = "forever", hide_default_value = true)]
        until: Until,
        /// Write a report as JSON to this file: every two seconds, and when the run ends
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Answer with metrics for Prometheus at http://ADDRESS/metrics, and at /healthz and /readyz
        #[arg(long, value_name = "ADDRESS")]
        metrics: Option<SocketAddr>,
    },
    /// Run many pipelines in one process, made and watched over HTTP
    Serve {
        /// The server's file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Turn the configuration of milvus-cdc into a server's file
    ImportCdcConfig {
        /// milvus-cdc's `cdc.yaml`
        file: PathBuf,
        /// Write to this file, which must not be there yet, and not to standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Look for everything that would keep a pipeline from running, without changing anything
    Check {
        /// The pipeline file
        pipeline: PathBuf,
        /// Check the file alone, without connecting to anything
        #[arg(long)]
        offline: bool,
    },
    /// Remove what a pipeline that is not to run any more keeps in the queue, and its state; the target stays as it is
    Remove {
        /// The pipeline file
        pipeline: PathBuf,
    },
    /// Look at a pipeline's state, move it, or set it back
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Print a source's messages as they pass, or count them
    Tail(tail::Arguments),
    /// List the places at which the process can be made to kill itself, for tests
    #[command(hide = true)]
    FailPoints,
    /// Compare source and target, row by row, also while the pipeline runs
    Verify(verify::Arguments),
}

fn parse_until(text: &str) -> Result<Until, String> {
    match text {
        "forever" => Ok(Until::Forever),
        "caught-up" => Ok(Until::CaughtUp),
        _ => Tso::parse(text).map(Until::Time).ok_or_else(|| {
            "expected caught-up, an RFC 3339 time such as 2026-11-22T10:00:00Z, or a Milvus timestamp"
                .to_owned()
        }),
    }
}

fn parse_pattern(text: &str) -> Result<String, String> {
    match Select::objection(text) {
        None => Ok(text.to_owned()),
        Some((message, hint)) => Err(format!("it {message}: {hint}")),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.to_string())
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not failures.
            let code = if error.use_stderr() { 2 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let format = match arguments.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    let ready = logging::init(format, &arguments.log_level).and_then(|()| failpoint::init());
    let result = ready.and_then(|()| {
        match arguments.command {
            Command::Run { pipeline, until, report, metrics } => {
                run::run(&pipeline, until, report.as_deref(), metrics)
            }
            Command::Serve { config } => serve::serve(&config),
            Command::ImportCdcConfig { file, output } => {
                import_cdc_config::import_cdc_config(&file, output.as_ref())
            }
            Command::Check { pipeline, offline } => check::check(&pipeline, offline),
            Command::Remove { pipeline } => remove::remove(&pipeline),
            Command::Checkpoint(command) => checkpoint::checkpoint(command),
            Command::Tail(arguments) => tail::tail(arguments),
            Command::Verify(arguments) => return verify::verify(arguments),
            Command::FailPoints => {
                for (_, name, meaning) in failpoint::POINTS {
                    println!("{name}\t{meaning}");
                }
                Ok(())
            }
        }
        .map(|()| 0)
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error, arguments.log_format);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn report(error: &Error, format: LogFormat) {
    match format {
        LogFormat::Text => eprintln!("error: {}", error.report()),
        LogFormat::Json => tracing::error!(kind = ?error.kind(), "{}", error.report()),
    }
}
