//! The daemon under load: its CPU time, memory, requests and latencies, measured on a process of its own against an AWS in
//! another one.
//!
//! ```sh
//! cargo run --release --example load -- --objects 200 --records 5000 --compare gunzip
//! cargo run --release --example load -- --objects 10000 --records 1-50 --latency 5 --compare sdk
//! cargo run --release --example load -- --scenario latency --objects 50 --latency 5
//! cargo run --release --example load -- --scenario fair --objects 300 --records 20000-40000
//! cargo run --release --example load -- --start 20
//! cargo run --release --example load -- --soak --objects 1000000 --records 1-50
//! cargo run --example load -- --short
//! ```
//!
//! docs/performance.md says what the figures mean.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

mod generator;
mod plan;
mod process;
mod report;
mod sdk;
mod server;
mod usage;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

fn main() -> ExitCode {
    match std::env::var(process::ROLE).as_deref() {
        // The daemon as it is: this program holds the same code as the binary.
        Ok("daemon") => trailhound::cli::main(),
        Ok("server") => done(server_role()),
        Ok("sdk") => done(sdk_role()),
        _ => done(report::run(report::Options::parse())),
    }
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

fn server_role() -> anyhow::Result<()> {
    server::run(serde_json::from_str(&variable(process::PLAN)?)?)
}

fn sdk_role() -> anyhow::Result<()> {
    let number = |name| anyhow::Ok(variable(name)?.parse()?);
    sdk::run(&variable(process::QUEUE)?, number(process::CONCURRENCY)?, number(process::POLLERS)?)
}
