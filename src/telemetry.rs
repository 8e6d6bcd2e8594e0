//! Logs, on standard error: the output of commands has standard output for itself.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// At debug level these print headers and bodies: they stay at `warn` unless the filter names them.
const TALKATIVE: [&str; 9] =
    ["aws_config", "aws_credential", "aws_runtime", "aws_sdk", "aws_sigv4", "aws_smithy", "h2", "hyper", "rustls"];

/// Starts logging for the whole process. A second call changes nothing.
///
/// # Errors
///
/// What is wrong with the filter.
pub fn start(config: &LogConfig) -> Result<(), String> {
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let subscriber = subscriber(filter(&config.level)?, json, std::io::stderr);
    // A second start, as tests do it, keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn subscriber<W>(filter: EnvFilter, json: bool, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    if json {
        Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(true).finish())
    } else {
        Box::new(lines.finish())
    }
}

/// Reads a filter such as `info` or `info,trailhound::deliver=debug`.
///
/// # Errors
///
/// What is wrong with it, and what would be right.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    const HINT: &str =
        "take error, warn, info, debug, trace or off, or a filter such as \"info,trailhound::deliver=debug\"";
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut level = None;
    // Inside of braces a comma separates fields, not directives.
    for directive in directives.iter().filter(|_| !text.contains('{')) {
        match directive.parse::<LevelFilter>() {
            Ok(bare) => level = Some(bare),
            // `tracing` would take a misspelt level for the name of a module, and log nothing else.
            Err(_) if !directive.contains(['=', '[']) => return Err(format!("{directive:?} is not a level; {HINT}")),
            Err(_) => {}
        }
    }
    let named = |quiet: &str| {
        directives
            .iter()
            .any(|directive| directive.split(['=', '[']).next().is_some_and(|t| !t.is_empty() && quiet.starts_with(t)))
    };
    let quiet = TALKATIVE.iter().filter(|target| level > Some(LevelFilter::WARN) && !named(target));
    let all: Vec<String> = quiet.map(|target| format!("{target}=warn")).chain([text.to_owned()]).collect();
    EnvFilter::builder()
        .with_regex(false)
        .parse(all.join(","))
        .map_err(|error| format!("{text:?} is not a filter ({error}); {HINT}"))
}
