//! Logs, on standard error: the output of commands has standard output for itself.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogConfig, LogFormat};

/// At debug level these print headers and bodies: they stay at `warn` unless the filter names them.
const TALKATIVE: [&str; 4] = ["aws_", "h2", "hyper", "rustls"];

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
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        // It would be reported with `eprintln!`, which panics when the reader of standard error is gone.
        .log_internal_errors(false);
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
    let text = match text.trim().to_ascii_lowercase().as_str() {
        // As Python names them, and with it the Lambdas that this replaces.
        "warning" => "warn",
        "critical" | "fatal" => "error",
        _ => text,
    };
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::env::lock;

    #[test]
    fn the_sdk_stays_quiet_at_debug_unless_it_is_named() {
        assert_eq!(shown("debug", "aws_smithy_runtime::client"), "warn");
        assert_eq!(shown("trace", "hyper_util::client"), "warn");
        assert_eq!(shown("debug", "trailhound::deliver"), "debug");
        assert_eq!(shown("info,aws_smithy_runtime=debug", "aws_smithy_runtime::client"), "debug");
        assert_eq!(shown("info,aws_config=debug", "aws_smithy_runtime::client"), "warn");
        assert_eq!(shown("info,aws=trace", "aws_smithy_runtime::client"), "trace");
    }

    #[test]
    fn a_quieter_level_holds_for_the_sdk_too() {
        assert_eq!(shown("error", "aws_config::imds"), "error");
        assert_eq!(shown("off", "aws_config::imds"), "nothing");
        assert_eq!(shown("INFO", "trailhound"), "info");
        assert_eq!(shown("WARNING", "trailhound"), "warn");
        assert_eq!(shown("CRITICAL", "trailhound"), "error");
    }

    #[test]
    fn a_misspelt_level_is_refused_rather_than_taken_for_a_module() {
        for wrong in ["warnings", "info,debgu", "trailhound=loud", "verbose", "[", "trailhound=debug=info"] {
            let error = filter(wrong).map(|filter| filter.to_string()).unwrap_err();
            assert!(error.contains("info,trailhound::deliver=debug"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_line_in_a_container_is_one_flat_json_document() {
        let written = Written::default();
        let copy = written.clone();
        let subscriber = subscriber(filter("info").unwrap(), true, move || copy.clone());
        tracing::subscriber::with_default(subscriber, || {
            let message = tracing::info_span!("message", message.id = "m-1");
            let _inside = message.enter();
            tracing::info!(object.key = "a\nb", "object read");
        });
        let text = String::from_utf8(lock(&written.0).clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "object read");
        assert_eq!(line["object.key"], "a\nb");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["spans"][0]["message.id"], "m-1");
    }

    /// The most talkative level that a filter lets a target write.
    fn shown(text: &str, target: &str) -> &'static str {
        let written = Written::default();
        let copy = written.clone();
        let subscriber = subscriber(filter(text).unwrap(), true, move || copy.clone());
        tracing::subscriber::with_default(subscriber, || match target {
            "aws_smithy_runtime::client" => speak!("aws_smithy_runtime::client"),
            "aws_config::imds" => speak!("aws_config::imds"),
            "hyper_util::client" => speak!("hyper_util::client"),
            "trailhound::deliver" => speak!("trailhound::deliver"),
            _ => speak!("trailhound"),
        });
        let text = String::from_utf8(lock(&written.0).clone()).unwrap();
        ["trace", "debug", "info", "warn", "error"]
            .into_iter()
            .find(|level| text.contains(&format!("said at {level}")))
            .unwrap_or("nothing")
    }

    macro_rules! speak {
        ($target:literal) => {{
            tracing::trace!(target: $target, "said at trace");
            tracing::debug!(target: $target, "said at debug");
            tracing::info!(target: $target, "said at info");
            tracing::warn!(target: $target, "said at warn");
            tracing::error!(target: $target, "said at error");
        }};
    }
    use speak;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
