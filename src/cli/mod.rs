//! The command line. Output goes to standard output, logs and errors go to standard error.

mod doctor;
mod emf;
mod healthcheck;
mod output;
mod printed;
mod rules;
mod run;
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
use crate::metrics::REVISION;
use crate::reload::LoadError;

/// Turns AWS CloudTrail into alerts.
#[derive(Debug, Parser)]
#[command(name = "trailhound", version = version(), disable_help_subcommand = true)]
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
    Run,
    /// Print the configuration in force, and where each value comes from
    Config {
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Check, test, explain and import rules
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Ask a running daemon whether it works; fails until it was ready once
    Healthcheck {
        /// Where to ask, instead of /livez at the configured address
        #[arg(long)]
        url: Option<String>,
    },
    /// Check the whole installation, and say what is wrong and how to mend it; exit code 1 if there is a problem
    #[command(after_long_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Print the completions of a shell
    #[command(after_long_help = printed::COMPLETIONS_HELP)]
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_long_help = printed::MAN_HELP)]
    Man,
    /// Show the daemon at work on an AWS inside of this process
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

/// Runs a tool until it ends or is interrupted (Ctrl-C, SIGTERM), which is no success: the exit code then is the shell's
/// for that signal. What the tool holds is dropped where it stands.
fn interruptible(tool: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let watched = |kind| signal(kind).map_err(|error| Failure::at("cannot watch signals", error));
    let done = runtime.block_on(async {
        let (mut interrupts, mut terminates) = (watched(SignalKind::interrupt())?, watched(SignalKind::terminate())?);
        tokio::select! {
            biased;
            _ = interrupts.recv() => Err(Failure::Told(130)),
            _ = terminates.recv() => Err(Failure::Told(143)),
            done = tool => done,
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
