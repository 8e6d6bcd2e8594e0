//! `trailhound rules ...`: what a person who writes rules needs, with the same check as the daemon's.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::output::table;
use super::{Failure, environment, examples, runtime, say};
use crate::aws;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::reload::{LoadError, RuleObject, RulePath, fetch, read_text};
use crate::rules::import;
use crate::rules::suite::{self, Expect, Outcome, SuiteError};
use crate::rules::{
    Cost, Explainer, Level, Loaded, LooksAt, Mode, NamedLists, RuleInfo, RuleSet, SCHEMA, Surroundings, Verdict,
};

/// Not more than this is read of a file with a record.
const MAX_RECORD_FILE: u64 = 64 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Tell everything that is wrong with a rule file; exit code 78 if the daemon would refuse it
    #[command(after_long_help = examples::RULES_CHECK)]
    Check {
        /// The rule file; rules.path of the configuration without it, and `-` for standard input
        file: Option<PathBuf>,
        /// Estimate each rule's share of the work, and say which rules must look at every record
        #[arg(long)]
        cost: bool,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Run the tests of the rules; exit code 1 if one fails
    #[command(after_long_help = examples::RULES_TEST)]
    Test {
        /// The rule file; rules.path of the configuration without it
        file: Option<PathBuf>,
        /// The file of tests; without it the one beside the rules, RULES.tests.json for RULES.json
        #[arg(long, value_name = "FILE")]
        tests: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Say condition by condition why a record matches a rule, or does not
    #[command(after_long_help = examples::RULES_EXPLAIN)]
    Explain(ExplainArgs),
    /// Show the rules as a table
    #[command(after_long_help = examples::RULES_LIST)]
    List {
        /// The rule file; rules.path of the configuration without it, and `-` for standard input
        file: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print rules of others in our format; what a reader should know goes to standard error
    #[command(after_long_help = examples::RULES_IMPORT)]
    Import {
        /// Whose rules they are
        #[arg(long, value_enum)]
        from: From,
        /// Files with rules; `-` for standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a rule file, for editors
    #[command(after_long_help = examples::RULES_SCHEMA)]
    Schema,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The rule's id; without it, every rule that matches is told
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// The rule file; rules.path of the configuration without it
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// A file with a record, a log file with one record, or an EventBridge event; `-` for standard input
    record: PathBuf,
    /// Which record of a log file with several, from 0
    #[arg(long, default_value_t = 0)]
    index: usize,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(super) enum From {
    /// Event patterns, `aws events describe-rule` or `list-rules` output, `CloudFormation` templates
    EventBridge,
    /// Metric filters of `CloudWatch` Logs: bare, or `aws logs describe-metric-filters` output
    CloudWatch,
    /// Sigma rules for `CloudTrail`, in YAML
    Sigma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

pub(super) fn run(config: Option<&Path>, command: RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::Check { file, cost, format } => check(&Opened::new(config, file)?, cost, format),
        RulesCommand::Test { file, tests, format } => test(&Opened::new(config, file)?, tests, format),
        RulesCommand::Explain(arguments) => explain(config, arguments),
        RulesCommand::List { file, format } => list(&Opened::new(config, file)?, format),
        RulesCommand::Import { from, files } => import(from, &files),
        RulesCommand::Schema => say(SCHEMA.trim_end()),
    }
}

/// A rule file, and what the configuration says about it.
struct Opened {
    path: RulePath,
    text: String,
    lists: NamedLists,
}

impl Opened {
    fn new(config: Option<&Path>, file: Option<PathBuf>) -> Result<Self, Failure> {
        let (configured, lists) = Config::for_rules(config, environment())?;
        // An address in S3 may stand wherever a file may.
        let path = match file {
            None => configured,
            Some(file) => match file.to_str().map(str::parse) {
                Some(Ok(path)) => path,
                Some(Err(wrong)) => return Err(Failure::Other(wrong)),
                None => RulePath::File(file),
            },
        };
        let text = match &path {
            RulePath::File(file) if file == Path::new("-") => input(file)?,
            RulePath::File(file) => read_text(file)?,
            RulePath::Object(object) => download(object)?,
        };
        Ok(Self { path, text, lists })
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { lists: self.lists.clone(), today: Some(OffsetDateTime::now_utc().date()) }
    }

    fn load(&self) -> Loaded {
        RuleSet::load(&self.text, &self.surroundings())
    }

    /// The rules, if the file is right; what is probably not meant is no obstacle here.
    fn rules(&self) -> Result<RuleSet, Failure> {
        let errors = |errors| Failure::Rules(LoadError::Rules { path: self.path.clone(), errors });
        self.load().rules.map_err(errors)
    }
}

/// The rules that a file or the configuration names, for a tool that evaluates records.
pub(super) fn load(config: Option<&Path>, file: Option<PathBuf>) -> Result<RuleSet, Failure> {
    Opened::new(config, file)?.rules()
}

/// Reads rules in S3, as the daemon does.
fn download(object: &RuleObject) -> Result<String, Failure> {
    let metrics = Metrics::new().map_err(|error| Failure::at("cannot register the metrics", error))?;
    let fetched = runtime()?.block_on(async {
        let ports = aws::connect(&aws::Settings::default(), Arc::new(metrics)).await;
        fetch(&*ports.objects, object, None).await
    })?;
    Ok(fetched.unwrap_or_default().text)
}

fn check(opened: &Opened, cost: bool, format: Format) -> Result<(), Failure> {
    let Loaded { rules, warnings } = opened.load();
    let errors = rules.as_ref().err().map(|wrong| wrong.errors.clone()).unwrap_or_default();
    let mut all: Vec<_> = errors.iter().chain(&warnings).cloned().collect();
    all.sort_by_key(|one| one.line);
    let count = rules.as_ref().map(|rules| rules.rules().len()).ok();
    let costs = rules.as_ref().ok().filter(|_| cost).map(RuleSet::costs);
    say(&match format {
        Format::Json => {
            let mut document = json!({
                "file": opened.path.to_string(),
                "rules": count,
                "errors": errors.len(),
                "warnings": warnings.len(),
                "diagnostics": all,
            });
            if let (Some(costs), Some(document)) = (&costs, document.as_object_mut()) {
                document.insert("cost".to_owned(), costs.iter().map(cost_document).collect());
            }
            format!("{document:#}")
        }
        Format::Text => {
            let level = |level| match level {
                Level::Error => "error",
                Level::Warning => "warning",
            };
            let mut lines: Vec<_> = all.iter().map(|one| format!("{}: {one}", level(one.level))).collect();
            lines.extend(costs.as_deref().map(cost_text));
            let found = format!("{} errors, {} warnings", errors.len(), warnings.len());
            lines.push(match count {
                Some(count) => format!("{}: {count} rules, {found}", opened.path),
                None => format!("{}: {found}", opened.path),
            });
            lines.join("\n")
        }
    })?;
    if errors.is_empty() { Ok(()) } else { Err(Failure::Told(78)) }
}

fn cost_document(cost: &Cost) -> Value {
    let (path, texts) = match &cost.looks_at {
        LooksAt::Texts { path, texts } => (json!(path), json!(texts)),
        LooksAt::Nothing | LooksAt::Everything => (Value::Null, json!([])),
    };
    json!({
        "rule": cost.rule.id,
        "share": cost.share,
        "every_record": cost.looks_at == LooksAt::Everything,
        "field": path,
        "texts": texts,
    })
}

/// The dearest first.
fn cost_text(costs: &[Cost]) -> String {
    let mut sorted: Vec<_> = costs.iter().collect();
    sorted.sort_by(|a, b| b.share.total_cmp(&a.share));
    let row = |cost: &&Cost| {
        let looks_at = match &cost.looks_at {
            LooksAt::Nothing => "nothing: its mode is off".to_owned(),
            LooksAt::Everything => "every record".to_owned(),
            LooksAt::Texts { path, texts } => {
                let first = texts.first().map(String::as_str).unwrap_or_default();
                match texts.len().saturating_sub(1) {
                    0 => format!("{path} {first:?}"),
                    more => format!("{path} {first:?} and {more} more"),
                }
            }
        };
        vec![format!("{:5.1} %", cost.share * 100.0), cost.rule.id.clone(), looks_at]
    };
    let rows = sorted.iter().map(row);
    let broad = costs.iter().filter(|cost| cost.looks_at == LooksAt::Everything).count();
    let total = costs.len();
    let summary = match broad {
        0 => format!("none of {total} rules must look at every record"),
        broad => format!(
            "{broad} of {total} rules must look at every record: they name no exact eventName, eventSource, errorCode or userIdentityType"
        ),
    };
    format!("{}\n{summary}", table(&["share", "id", "looks at"], rows))
}

fn test(opened: &Opened, tests: Option<PathBuf>, format: Format) -> Result<(), Failure> {
    let path = match (tests, &opened.path) {
        (Some(tests), _) => tests,
        (None, RulePath::File(file)) => file.with_extension("tests.json"),
        (None, RulePath::Object(object)) => {
            return Err(Failure::Other(format!("say with --tests where the tests of {object} are")));
        }
    };
    // A test must not depend on where it runs: lists that the configuration fills elsewhere hold what the tests say.
    let surroundings = Surroundings { lists: NamedLists::new(), today: opened.surroundings().today };
    let tests = read_text(&path).map_err(|error| match error {
        LoadError::Read { path, source } => Failure::Tests(format!("cannot read the test file {path}: {source}")),
        other => Failure::Rules(other),
    })?;
    let report = suite::run(&tests, &opened.text, &surroundings).map_err(|error| match error {
        SuiteError::Rules(errors) => Failure::Rules(LoadError::Rules { path: opened.path.clone(), errors }),
        SuiteError::Tests(errors) => {
            let told: Vec<_> = errors.errors.iter().map(ToString::to_string).collect();
            Failure::Tests(format!("the test file {} is wrong:\n{}", path.display(), told.join("\n")))
        }
    })?;
    let explainer = Explainer::new(&opened.text, &report.surroundings)
        .map_err(|errors| Failure::Rules(LoadError::Rules { path: opened.path.clone(), errors }))?;
    let decision = |outcome: &Outcome| {
        let explanation = explainer.explain(&outcome.rule, outcome.record.as_bytes());
        explanation.map(|explanation| explanation.decision()).unwrap_or_default()
    };
    let failed: Vec<_> = report.outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    say(&match format {
        Format::Json => {
            let outcomes: Vec<_> = report
                .outcomes
                .iter()
                .map(|outcome| {
                    json!({
                        "rule": outcome.rule,
                        "test": outcome.name,
                        "line": outcome.line,
                        "expected": outcome.expected.as_str(),
                        "matched": outcome.matched,
                        "passed": outcome.passed(),
                        "decision": if outcome.passed() { Value::Null } else { decision(outcome).into() },
                    })
                })
                .collect();
            let document = json!({
                "passed": report.outcomes.len() - failed.len(),
                "failed": failed.len(),
                "untested": report.untested,
                "warnings": report.warnings,
                "tests": outcomes,
            });
            format!("{document:#}")
        }
        Format::Text => {
            let mut lines: Vec<_> = report.warnings.iter().map(|one| format!("warning: {one}")).collect();
            lines.extend(failed.iter().map(|outcome| {
                let (expected, found) = match outcome.expected {
                    Expect::Match => ("must match", "does not"),
                    Expect::NoMatch => ("must not match", "does"),
                };
                format!(
                    "FAILED line {}: {}: {:?} {expected} and {found}\n        {}",
                    outcome.line,
                    outcome.rule,
                    outcome.name,
                    decision(outcome)
                )
            }));
            if !report.untested.is_empty() {
                lines.push(format!("without tests: {}", report.untested.join(", ")));
            }
            let passed = report.outcomes.len() - failed.len();
            lines.push(format!("{}: {passed} passed, {} failed", path.display(), failed.len()));
            lines.join("\n")
        }
    })?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::Told(1)) }
}

fn list(opened: &Opened, format: Format) -> Result<(), Failure> {
    let rules = opened.rules()?;
    if format == Format::Json {
        let infos: Vec<&RuleInfo> = rules.rules().iter().map(|rule| &**rule).collect();
        return say(&format!("{:#}", json!(infos)));
    }
    let rows = rules.rules().iter().map(|rule| {
        let about = rule.title.as_ref().unwrap_or(&rule.description);
        vec![
            rule.id.clone(),
            rule.severity.to_string(),
            rule.mode.as_str().to_owned(),
            rule.attack.join(" "),
            about.lines().next().unwrap_or_default().to_owned(),
        ]
    });
    say(&table(&["id", "severity", "mode", "att&ck", "about"], rows))
}

fn explain(config: Option<&Path>, arguments: ExplainArgs) -> Result<(), Failure> {
    let ExplainArgs { rule, rules, record, index, format } = arguments;
    let opened = Opened::new(config, rules)?;
    let explainer = Explainer::new(&opened.text, &opened.surroundings())
        .map_err(|errors| Failure::Rules(LoadError::Rules { path: opened.path.clone(), errors }))?;
    let raw = one_record(&record, index)?;
    let ids: Vec<String> = if let Some(id) = rule {
        if !explainer.ids().any(|known| known == id) {
            let file = opened.path;
            let message = format!("there is no rule {id:?} in {file}; `trailhound rules list` shows all");
            return Err(Failure::Other(message));
        }
        vec![id]
    } else {
        let is_met = |id: &&str| {
            let explanation = explainer.explain(id, raw.as_bytes());
            explanation.is_some_and(|one| one.verdict != Verdict::Fails)
        };
        explainer.ids().filter(is_met).map(str::to_owned).collect()
    };
    let told: Vec<_> = ids.iter().filter_map(|id| Some((id, explainer.explain(id, raw.as_bytes())?))).collect();
    if format == Format::Json {
        let documents: Vec<Value> = told
            .iter()
            .map(|(id, explanation)| {
                let steps: Vec<_> = explanation
                    .steps
                    .iter()
                    .map(|step| json!({ "depth": step.depth, "holds": step.holds, "text": step.text }))
                    .collect();
                json!({
                    "rule": id,
                    "mode": explanation.mode.as_str(),
                    "matches": explanation.verdict == Verdict::Matches,
                    "exception": match explanation.verdict { Verdict::Excepted(position) => json!(position), _ => Value::Null },
                    "decision": explanation.decision(),
                    "steps": steps,
                })
            })
            .collect();
        return say(&format!("{:#}", json!(documents)));
    }
    if told.is_empty() {
        return say("no rule matches this record; name one with --rule to see why it does not");
    }
    let text = |(id, explanation): &(&String, crate::rules::Explanation)| {
        let verdict = match explanation.verdict {
            Verdict::Matches => "matches".to_owned(),
            Verdict::Excepted(position) => format!("is met, but excepted by unless[{position}]"),
            Verdict::Fails => "does not match".to_owned(),
        };
        let mode = match explanation.mode {
            Mode::Alert => "",
            Mode::Shadow => " (mode shadow: stored, not alerted)",
            Mode::Off => " (mode off: the daemon does not look at it)",
        };
        let steps = explanation.steps.iter().map(|step| {
            let mark = if step.holds { "yes" } else { "NO " };
            format!("  {mark}  {}{}", "  ".repeat(step.depth), step.text)
        });
        std::iter::once(format!("{id} {verdict}{mode}")).chain(steps).collect::<Vec<_>>().join("\n")
    };
    say(&told.iter().map(text).collect::<Vec<_>>().join("\n\n"))
}

/// Prints what could be imported, and tells of each rule what the daemon's own check says.
fn import(from: From, files: &[PathBuf]) -> Result<(), Failure> {
    let format = match from {
        From::EventBridge => import::Format::EventBridge,
        From::CloudWatch => import::Format::CloudWatch,
        From::Sigma => import::Format::Sigma,
    };
    let mut rules = Vec::new();
    let mut refused = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        match import::import(format, &name, &input(path)?) {
            Ok(imported) => {
                for one in imported {
                    let id = one.rule.get("id").and_then(Value::as_str).unwrap_or_default();
                    for note in &one.notes {
                        tell(&format!("note: {name} (rule {id:?}): {note}"));
                    }
                    rules.push(one.rule);
                }
            }
            Err(errors) => refused.extend(errors.iter().map(|error| format!("error: {error}"))),
        }
    }
    if !rules.is_empty() {
        let text = import::print(&rules);
        say(&text)?;
        let Loaded { rules, warnings } = RuleSet::load(&text, &Surroundings::default());
        for warning in &warnings {
            tell(&format!("warning: {warning}"));
        }
        if let Err(wrong) = rules {
            refused
                .extend(wrong.errors.iter().map(|error| format!("error: what is printed would be refused: {error}")));
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    for error in &refused {
        tell(error);
    }
    Err(Failure::Told(78))
}

/// A line for people, beside the output.
fn tell(line: &str) {
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn input(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let failed = |error: std::io::Error| Failure::at(format_args!("cannot read {}", path.display()), error);
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_RECORD_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).map_err(failed)?.take(MAX_RECORD_FILE).read_to_string(&mut text)
    };
    read.map_err(failed)?;
    Ok(text)
}

/// The bytes of one record as they stand in the file.
fn one_record(path: &Path, index: usize) -> Result<String, Failure> {
    let text = input(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| Failure::at(format_args!("{} is no JSON", path.display()), error))?;
    let raw = text.as_bytes();
    let records = crate::cloudtrail::json::get(raw, "Records").unwrap_or(raw);
    let found = if crate::cloudtrail::json::is_array(records) {
        let count = crate::cloudtrail::json::elements(records).count();
        crate::cloudtrail::json::elements(records).nth(index).ok_or_else(|| {
            Failure::Other(format!("{} holds {count} records: there is no record {index}", path.display()))
        })?
    } else {
        // EventBridge puts the record under `detail`.
        crate::cloudtrail::json::get(raw, "detail").unwrap_or(raw)
    };
    Ok(String::from_utf8_lossy(found).into_owned())
}
