//! The command line. Output goes to standard output, logs and errors go to standard error.

mod dlq;
mod doctor;
mod emf;
mod events;
mod examples;
mod healthcheck;
mod output;
mod printed;
mod replay;
mod rules;
mod run;
mod scan;
mod settings;
mod when;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use tokio::signal::unix::{SignalKind, signal};

use crate::config::ConfigErrors;
use crate::env::{Phase, Stop, StopHandle};
use crate::metrics::REVISION;
use crate::reload::LoadError;

/// Turns AWS CloudTrail into alerts.
#[derive(Debug, Parser)]
#[command(name = "trailhound", version = version(), disable_help_subcommand = true, after_long_help = examples::ALL)]
struct Cli {
    /// A configuration file, between the built-in defaults and the environment
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (the default)
    #[command(after_long_help = examples::RUN)]
    Run,
    /// Print the configuration in force, and where each value comes from
    #[command(after_long_help = examples::CONFIG)]
    Config {
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Check, test, explain and import rules
    #[command(subcommand, after_long_help = examples::RULES)]
    Rules(rules::RulesCommand),
    /// Evaluate log files: on disk, in S3, from standard input; nothing is written to AWS
    #[command(after_long_help = scan::HELP)]
    Scan(Box<scan::ScanArgs>),
    /// Send logs of the past through the whole pipeline; without more, only count them
    #[command(after_long_help = replay::HELP)]
    Replay(Box<replay::ReplayArgs>),
    /// Look at the messages of the dead-letter queue, say what is wrong with them, send them again, or delete them
    #[command(subcommand, after_long_help = dlq::HELP)]
    Dlq(dlq::DlqCommand),
    /// Read detected events back from the table: list them, show one, export them
    #[command(subcommand, after_long_help = events::HELP)]
    Events(events::EventsCommand),
    /// Ask a running daemon whether it works; fails until it was ready once
    #[command(after_long_help = examples::HEALTHCHECK)]
    Healthcheck {
        /// Where to ask, instead of /livez at the configured address
        #[arg(long)]
        url: Option<String>,
    },
    /// Check the whole installation, and say what is wrong and how to mend it; exit code 1 if there is a problem
    #[command(after_long_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell
    #[command(after_long_help = examples::COMPLETIONS)]
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_long_help = examples::MAN)]
    Man,
    /// Show the daemon at work on an AWS inside of this process
    #[command(after_long_help = examples::DEMO)]
    #[cfg(feature = "emulator")]
    Demo(crate::demo::DemoArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// `key = value  # origin`, which can be used as a configuration file
    Text,
    /// One object, from keys to value and origin
    Json,
}

/// Why a command failed: decides the exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Rules(#[from] LoadError),
    #[error("{0}")]
    Tests(String),
    /// The arguments ask for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The output says it already.
    #[error("failed")]
    Told(u8),
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Failed at `what`, because of `error`.
    fn at(what: impl Display, error: impl Display) -> Self {
        Self::Other(format!("{what}: {error}"))
    }

    /// As `sysexits.h` numbers them, where it has a fitting one.
    fn code(&self) -> u8 {
        match self {
            Self::Rules(error) if error.may_pass() => 1,
            Self::Config(_) | Self::Rules(_) | Self::Tests(_) => 78,
            Self::Usage(_) => USAGE,
            Self::Told(code) => *code,
            Self::Other(_) => 1,
        }
    }
}

const USAGE: u8 = 64;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let file = cli.config.as_deref();
    let done = match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(file),
        Command::Config { format } => settings::print(file, format),
        Command::Rules(command) => rules::run(file, command),
        Command::Scan(args) => scan::run(file, *args),
        Command::Replay(args) => replay::run(file, *args),
        Command::Dlq(command) => dlq::run(file, command),
        Command::Events(command) => events::run(file, command),
        Command::Healthcheck { url } => healthcheck::run(file, url.as_deref()),
        Command::Doctor(args) => doctor::run(file, &args),
        Command::Completions { shell } => printed::completions(Cli::command(), shell),
        Command::Man => printed::man(&Cli::command()),
        #[cfg(feature = "emulator")]
        Command::Demo(_) if file.is_some() => {
            return usage(
                &Cli::command().error(ErrorKind::ArgumentConflict, "the demo has a configuration of its own"),
            );
        }
        #[cfg(feature = "emulator")]
        Command::Demo(args) => return demo(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}

/// Tells what is wrong with the arguments, or prints the help or the version that they ask for.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told that the reader of the output is gone.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

#[cfg(feature = "emulator")]
fn demo(args: crate::demo::DemoArgs) -> ExitCode {
    let done = runtime().and_then(|runtime| {
        runtime.block_on(crate::demo::run(args)).map_err(|error| match error.downcast() {
            Ok(rules) => Failure::Rules(rules),
            Err(error) => Failure::Other(format!("{error:#}")),
        })
    });
    done.unwrap_or_else(|failure| {
        complain(&failure);
        ExitCode::from(failure.code())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::at("cannot start the runtime", error))
}

/// Runs a tool that holds nothing, until it ends or is interrupted, which is no success.
fn interruptible(tool: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    stoppable(|_, stop| async move {
        tokio::select! {
            biased;
            () = stop.reached(Phase::Draining) => Ok(()),
            done = tool => done,
        }
    })
}

/// Runs a tool that has something to bring to its end: the first SIGINT or SIGTERM only asks it to end, by
/// [`Phase::Draining`]; a second one ends it where it stands. The exit code then is the shell's for that signal.
fn stoppable<F>(tool: impl FnOnce(StopHandle, Stop) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = runtime()?;
    let watched = |kind| signal(kind).map_err(|error| Failure::at("cannot watch signals", error));
    let done = runtime.block_on(async {
        let (mut interrupts, mut terminates) = (watched(SignalKind::interrupt())?, watched(SignalKind::terminate())?);
        let (handle, stop) = StopHandle::new();
        let mut tool = std::pin::pin!(tool(handle.clone(), stop));
        let mut stopped = None;
        loop {
            let code = tokio::select! {
                biased;
                done = &mut tool => {
                    let Some(code) = stopped else { return done };
                    if let Err(failure) = done {
                        complain(&failure);
                    }
                    complain(&Failure::Other("interrupted: this is not the whole".to_owned()));
                    return Err(Failure::Told(code));
                }
                _ = interrupts.recv() => 130,
                _ = terminates.recv() => 143,
            };
            if stopped.is_some() {
                return Err(Failure::Told(code));
            }
            stopped = Some(code);
            handle.advance(Phase::Draining);
        }
    });
    runtime.shutdown_background();
    done
}

/// The environment, as far as it is text: the rest names nothing of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// Prints a command's output. A reader that is gone wants no more of it; anything else that stops it is told.
fn say(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::at("cannot write the output", error))
        }
        _ => Ok(()),
    }
}

fn complain(failure: &Failure) {
    if matches!(failure, Failure::Told(_)) {
        return;
    }
    let _ = writeln!(std::io::stderr(), "{failure}");
}

/// clap wants a text that lives as long as the process.
fn version() -> &'static str {
    format!("{} ({REVISION})", env!("CARGO_PKG_VERSION")).leak()
}
