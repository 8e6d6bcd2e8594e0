//! What the commands print: tables and colour for people, a line of JSON for each thing for machines, and a progress bar
//! where a person watches.

use std::io::{IsTerminal as _, Stdout, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use super::Failure;
use crate::alert::{shown, visible_json};
use crate::rules::Severity;
use crate::scan::Figures;

/// How a command prints what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document a line
    Jsonl,
}

/// Standard output. Once its reader is gone, nobody wants more: printing then says [`Unprinted::Gone`].
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
    colour: bool,
    stdout: Stdout,
}

/// Why printing ended.
#[derive(Debug)]
pub(super) enum Unprinted {
    /// The reader of the output is gone.
    Gone,
    Failed(Failure),
}

/// A colour for people, nothing for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Warn,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        let wanted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colour = format == Format::Text && std::io::stdout().is_terminal() && !wanted("NO_COLOR");
        Self { format, colour, stdout: std::io::stdout() }
    }

    pub(super) fn is_for_people(&self) -> bool {
        self.format == Format::Text
    }

    /// Prints a line. Text of others must have gone through [`shown`] before.
    pub(super) fn line(&self, text: &str) -> Result<(), Unprinted> {
        let mut output = self.stdout.lock();
        match writeln!(output, "{text}").and_then(|()| output.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Unprinted::Gone),
            Err(error) => Err(Unprinted::Failed(Failure::at("cannot write the output", error))),
        }
    }

    /// Prints a value as a line of JSON, in which what is hidden is escaped.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), Unprinted> {
        let text = serde_json::to_string(value)
            .map_err(|error| Unprinted::Failed(Failure::at("cannot write the output as JSON", error)))?;
        self.line(&visible_json(text))
    }

    pub(super) fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => return text.to_owned(),
            _ if !self.colour => return text.to_owned(),
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Warn => "33",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A severity in its colour.
    pub(super) fn severity(&self, severity: Severity) -> String {
        let paint = match severity {
            Severity::Critical | Severity::High => Paint::Bad,
            Severity::Medium => Paint::Warn,
            Severity::Low => Paint::Plain,
        };
        self.paint(paint, severity.as_str())
    }
}

/// Reads a severity, in letters of any case.
pub(super) fn severity() -> impl TypedValueParser<Value = Severity> {
    const ALL: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    PossibleValuesParser::new(ALL.map(Severity::as_str))
        .try_map(|text| ALL.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(&text)).ok_or("not a severity"))
}

/// Takes the end of a reader as the end of the command.
pub(super) fn until_gone(printed: Result<(), Unprinted>) -> Result<(), Failure> {
    match printed {
        Ok(()) | Err(Unprinted::Gone) => Ok(()),
        Err(Unprinted::Failed(failure)) => Err(failure),
    }
}

/// A table with these titles, as wide as the terminal at most; on a pipe as wide as it gets.
pub(super) fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A text of somebody else in a cell: on one line, and bounded.
pub(super) fn cell(text: Option<&str>, limit: usize) -> String {
    text.map_or_else(|| "-".to_owned(), |text| shown(text, limit))
}

/// A progress bar on standard error, where that is a terminal: what is done, the rate, and the time left.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so many things; `None` where nobody knows how many there are.
    pub(super) fn new(what: &'static str, length: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
        Self::styled(what, bar, None)
    }

    /// The same with the bytes that were read, which move where one thing is large.
    pub(super) fn reading(what: &'static str, length: Option<u64>, figures: Arc<Figures>) -> Self {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(5));
        Self::styled(what, bar, Some(figures))
    }

    fn styled(what: &'static str, bar: ProgressBar, figures: Option<Arc<Figures>>) -> Self {
        style(&bar, figures);
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Of so many things, as is known only now: from here on the bar tells the time left.
    pub(super) fn known(&self, length: u64) {
        self.0.set_length(length);
        style(&self.0, None);
    }

    pub(super) fn add(&self, count: u64) {
        self.0.inc(count);
    }

    /// Prints without disturbing the bar.
    pub(super) fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

fn style(bar: &ProgressBar, figures: Option<Arc<Figures>>) {
    let template = match bar.length() {
        Some(_) => "{bar:30} {human_pos}/{human_len} {msg}{read}, {per_sec}, {left}",
        None => "{spinner} {human_pos} {msg}{read}, {per_sec}, {elapsed}",
    };
    let read = move |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let Some(figures) = &figures else { return };
        let bytes = figures.bytes.load(Ordering::Relaxed);
        let each = bytes.checked_div(state.elapsed().as_secs()).unwrap_or(bytes);
        // A bar that cannot be drawn is no harm.
        let _ = write!(text, ", {} ({}/s)", HumanBytes(bytes), HumanBytes(each));
    };
    let left = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Before anything is done nobody knows.
        let _ = match state.pos() {
            0 => write!(text, "time left unknown"),
            _ => write!(text, "{:#} left", HumanDuration(state.eta())),
        };
    };
    // Only a template of ours that is wrong has no style; the default one says as much.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("read", read).with_key("left", left));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
