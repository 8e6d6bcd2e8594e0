//! Logs, on standard error: the output of commands has standard output for itself.
//!
//! Whatever the filter says, neither credentials nor records get out, and an event is one line: texts of strangers stand in
//! some fields.

use std::io::{IsTerminal, Write};

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::alert::is_hidden;
use crate::config::{LogConfig, LogFormat};

/// These stay at `warn` unless the filter names them.
const TALKATIVE: [&str; 4] = ["aws_", "h2", "hyper", "rustls"];

/// Beside the daemon itself, what the filter may open, and how far. The rest of the SDK and the HTTP stack print headers,
/// bodies and signatures below `warn`.
const OPEN: (&str, LevelFilter) = ("aws_config", LevelFilter::DEBUG);

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
    let spelling = match (json, colours) {
        (true, _) => Spelling::Json,
        (false, true) => Spelling::Coloured,
        (false, false) => Spelling::Plain,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(OneLine { writer, spelling })
        .with_ansi(colours)
        // It would be reported with `eprintln!`, which panics when the reader of standard error is gone.
        .log_internal_errors(false);
    if json {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(true);
        Box::new(lines.finish().with(filter_fn(may_be_written)))
    } else {
        Box::new(lines.finish().with(filter_fn(may_be_written)))
    }
}

fn may_be_written(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= most_of(metadata.target())
}

/// The most that is ever written of a target.
fn most_of(target: &str) -> LevelFilter {
    let within =
        |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if within("trailhound") {
        LevelFilter::TRACE
    } else if within(OPEN.0) {
        OPEN.1
    } else {
        LevelFilter::WARN
    }
}

/// How what is hidden is escaped.
#[derive(Clone, Copy)]
enum Spelling {
    /// Inside of strings, where alone it can stand.
    Json,
    Plain,
    /// The formatter writes colours, which may stay.
    Coloured,
}

/// Each event on one line, without anything that moves the text around it.
#[derive(Clone)]
struct OneLine<W> {
    writer: W,
    spelling: Spelling,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine { writer: self.writer.make_writer(), spelling: self.spelling }
    }
}

/// Takes an event at a time, as the formatter writes it.
impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        if line.contains(is_hidden) {
            self.writer.write_all(self.spelling.escaped(line).as_bytes())?;
        } else {
            self.writer.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

/// The colours and weights of the formatter.
const COLOURS: [&str; 10] = ["[0m", "[1m", "[2m", "[3m", "[31m", "[32m", "[33m", "[34m", "[35m", "[36m"];

impl Spelling {
    /// With its line end.
    fn escaped(self, line: &str) -> String {
        let mut escaped = String::with_capacity(line.len() + line.len() / 8);
        let mut rest = line.chars();
        while let Some(character) = rest.next() {
            let colour = || COLOURS.iter().any(|colour| rest.as_str().starts_with(colour));
            match self {
                _ if !is_hidden(character) => escaped.push(character),
                Self::Coloured if character == '\u{1b}' && colour() => escaped.push(character),
                Self::Json => {
                    let mut units = [0; 2];
                    escaped.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                Self::Plain | Self::Coloured => escaped.extend(character.escape_default()),
            }
        }
        escaped.push('\n');
        escaped
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
            Err(_) => {
                let target = directive.split(['=', '[']).next().unwrap_or_default();
                let asked = directive.rsplit('=').next().and_then(|level| level.parse::<LevelFilter>().ok());
                let most = most_of(target);
                if !target.is_empty() && asked > Some(most) {
                    return Err(format!("{directive:?} would log what others sent: no more than {target}={most}"));
                }
            }
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
        assert_eq!(shown("info,aws_config=debug", "aws_smithy_runtime::client"), "warn");
        assert_eq!(shown("info,aws_config=debug", "aws_config::imds"), "debug");
    }

    #[test]
    fn no_filter_opens_what_prints_headers_and_bodies() {
        for (text, target) in [
            ("info,aws_smithy_runtime=debug", "aws_smithy_runtime::client"),
            ("info,aws=trace", "aws_smithy_runtime::client"),
            ("aws_config=trace", "aws_config::imds"),
            ("warn,hyper_util::client=info", "hyper_util::client"),
            ("trailhoundish=debug", "trailhoundish"),
        ] {
            let error = filter(text).map(|filter| filter.to_string()).unwrap_err();
            assert!(error.contains("would log what others sent: no more than "), "{error}");
            assert_eq!(
                shown_by(EnvFilter::new(text), target),
                shown_by(EnvFilter::new(most(target)), target),
                "{text}"
            );
        }
        // Spans and fields may be of anybody.
        for text in ["[{peer}]=trace", "[request]=trace,debug"] {
            assert!(matches!(shown(text, "hyper_util::client"), "warn" | "nothing"), "{text}");
        }
    }

    fn most(target: &str) -> String {
        format!("{target}={}", most_of(target))
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

    /// A key, a text of AWS that repeats it, and a text without quotes.
    #[test]
    fn an_event_is_one_line_whatever_stands_in_it() {
        let hostile = "a\r\nb\u{85}c\u{2028}d\u{2029}e\u{1b}[2Jf\u{202e}g\u{9b}h\u{0}i\u{b}j\u{c}k\u{e0041}l\u{7f}";
        for spelling in [Spelling::Json, Spelling::Plain, Spelling::Coloured] {
            let written = Written::default();
            let copy = written.clone();
            let writer = OneLine { writer: move || copy.clone(), spelling };
            let lines = tracing_subscriber::fmt().with_writer(writer).log_internal_errors(false);
            let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match spelling {
                Spelling::Json => Box::new(lines.with_ansi(false).json().flatten_event(true).finish()),
                Spelling::Plain => Box::new(lines.with_ansi(false).finish()),
                Spelling::Coloured => Box::new(lines.with_ansi(true).finish()),
            };
            tracing::subscriber::with_default(subscriber, || {
                let message = tracing::info_span!("message", id = %hostile);
                let _inside = message.enter();
                tracing::info!(bare = %hostile, quoted = hostile, "said {hostile}");
                tracing::info!("zwei \u{fc}");
            });
            let text = String::from_utf8(lock(&written.0).clone()).unwrap();
            let lines: Vec<&str> = text.split('\n').collect();
            assert_eq!((lines.len(), lines[2]), (3, ""), "{text:?}");
            assert!(lines[1].contains("zwei \u{fc}"), "{text:?}");
            for line in &lines {
                let colours = matches!(spelling, Spelling::Coloured);
                let plain = COLOURS
                    .iter()
                    .filter(|_| colours)
                    .fold((*line).to_owned(), |line, colour| line.replace(&format!("\u{1b}{colour}"), ""));
                assert!(!plain.contains(is_hidden), "{line:?}");
            }
            if let Ok(line) = serde_json::from_str::<serde_json::Value>(lines[0]) {
                assert_eq!((&line["bare"], &line["quoted"]), (&hostile.into(), &hostile.into()));
                assert_eq!(line["message"], format!("said {hostile}"));
            } else {
                assert!(!matches!(spelling, Spelling::Json), "{text}");
            }
        }
    }

    /// The most talkative level that a filter lets a target write.
    fn shown(text: &str, target: &str) -> &'static str {
        shown_by(filter(text).unwrap(), target)
    }

    fn shown_by(filter: EnvFilter, target: &str) -> &'static str {
        let written = Written::default();
        let copy = written.clone();
        let subscriber = subscriber(filter, true, move || copy.clone());
        tracing::subscriber::with_default(subscriber, || match target {
            "trailhoundish" => speak!("trailhoundish"),
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
