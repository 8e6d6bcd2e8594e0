//! Why a rule matches a record, or does not: condition by condition.

use super::condition::Body;
use super::file::{Draft, DraftBody, DraftPattern, File, read};
use super::matcher::Record;
use super::pattern::{Kind, Leaf, Pattern, any_leaf};
use super::{Level, Mode, RuleErrors, Surroundings};
use crate::alert;

/// What is shown of one value, and how many values of a field.
const MAX_SHOWN_CHARS: usize = 80;
const MAX_SHOWN_VALUES: usize = 3;

/// A rule file that still knows how it was written.
pub struct Explainer {
    file: File,
}

/// What became of a record under a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Matches,
    /// It meets the rule and an exception: its position under `unless`, from 0.
    Excepted(usize),
    Fails,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the daemon makes of a match; it does not look at a rule that is off.
    pub mode: Mode,
    pub verdict: Verdict,
    /// The conditions in the order in which they are judged.
    pub steps: Vec<Step>,
}

/// One condition, and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How deep it stands: conditions within an alternative or an exception are deeper.
    pub depth: usize,
    pub holds: bool,
    /// Such as `eventName is "StopLogging", wanted ["DeleteTrail"]`.
    pub text: String,
}

impl Step {
    /// What a record and a rule file say may hold anything, and a step is one line.
    fn new(depth: usize, holds: bool, text: impl AsRef<str>) -> Self {
        Self { depth, holds, text: alert::shown(text.as_ref(), usize::MAX) }
    }
}

impl Explainer {
    /// # Errors
    ///
    /// Everything for which the file is refused, but for what only the lint finds.
    pub fn new(text: &str, surroundings: &Surroundings) -> Result<Self, RuleErrors> {
        let (file, found) = read(text, surroundings, |_, _| {});
        let errors: Vec<_> = found.into_iter().filter(|one| one.level == Level::Error).collect();
        if errors.is_empty() { Ok(Self { file }) } else { Err(RuleErrors { errors }) }
    }

    /// The ids of the file, in its order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.file.drafts.iter().map(|draft| draft.info.id.as_str())
    }

    /// Judges a record's raw bytes by one rule, whatever its mode; `None` if there is no such rule.
    #[must_use]
    pub fn explain(&self, id: &str, record: &[u8]) -> Option<Explanation> {
        let draft = self.file.drafts.iter().find(|draft| draft.info.id == id)?;
        Some(explain(draft, record))
    }
}

impl Explanation {
    /// The condition that decided it, in one line.
    #[must_use]
    pub fn decision(&self) -> String {
        match self.verdict {
            Verdict::Fails => {
                let failed = self.steps.iter().find(|step| !step.holds && step.depth == 0);
                failed.map_or_else(|| "it does not match".to_owned(), |step| step.text.clone())
            }
            Verdict::Matches => {
                let held: Vec<_> = self
                    .steps
                    .iter()
                    .filter(|step| step.holds && step.depth == 0)
                    .map(|step| step.text.as_str())
                    .collect();
                format!("every condition holds: {}", held.join("; "))
            }
            Verdict::Excepted(_) => {
                let exception = self.steps.iter().rfind(|step| step.holds && step.depth == 0);
                exception.map_or_else(|| "an exception holds".to_owned(), |step| step.text.clone())
            }
        }
    }
}

fn explain(draft: &Draft, raw: &[u8]) -> Explanation {
    let record = Record::read(raw);
    let rule = draft.clone().rule();
    let mut steps = Vec::new();
    body(&draft.body, &rule.body, &record, raw, 0, &mut steps);
    if !(rule.body.allows(&record.key()) && record.meets(&rule.body)) {
        return Explanation { mode: draft.info.mode, verdict: Verdict::Fails, steps };
    }
    let excepted = record.exception(&rule);
    for (position, (written, compiled)) in draft.exceptions.iter().zip(&rule.exceptions).enumerate() {
        let until = written.until.as_ref().map(|(day, _)| format!(", until {day}")).unwrap_or_default();
        let holds = record.is_excepted(compiled);
        let says = if holds { "holds" } else { "does not hold" };
        steps.push(Step::new(0, holds, format!("exception unless[{position}] {says}: {}{until}", written.reason)));
        body(&written.body, &compiled.body, &record, raw, 1, &mut steps);
        if excepted == Some(position) {
            // The first exception decides; the last step at depth 0 is its own.
            return Explanation { mode: draft.info.mode, verdict: Verdict::Excepted(position), steps };
        }
    }
    Explanation { mode: draft.info.mode, verdict: Verdict::Matches, steps }
}

fn body(written: &DraftBody, compiled: &Body, record: &Record<'_>, raw: &[u8], depth: usize, steps: &mut Vec<Step>) {
    for condition in &written.plain {
        let any_of = condition.any_of();
        let wanted: Vec<_> = condition.values.iter().map(|(value, _)| shown(value)).collect();
        let found = record.text(condition.field).map_or_else(|| "not a string, or absent".to_owned(), shown);
        let text = format!("{} is {found}, wanted [{}]", condition.field.path(), wanted.join(", "));
        steps.push(Step::new(depth, record.holds(condition.field, &any_of), text));
    }
    if let (Some(pattern), Some(compiled)) = (&written.pattern, compiled.pattern()) {
        let before = steps.len();
        parts(&pattern.written, raw, depth, steps);
        let all_hold = steps.iter().skip(before).all(|step| step.holds || step.depth > depth);
        if all_hold && !compiled.matches(raw) {
            steps.push(Step::new(depth, false, together(pattern)));
        }
    }
}

fn together(pattern: &DraftPattern) -> String {
    let paths: Vec<_> = pattern.written.fields.iter().map(|field| field.path.as_str()).collect();
    format!("each part holds, but no single element of an array meets them together: {}", paths.join(", "))
}

fn parts(pattern: &Pattern, raw: &[u8], depth: usize, steps: &mut Vec<Step>) -> bool {
    let mut all = true;
    for field in &pattern.fields {
        let mut values = Vec::new();
        let mut holds = false;
        let mut present = false;
        any_leaf(raw, &field.path, &mut |leaf| {
            present = true;
            let read = Leaf::read(leaf);
            holds |= field.conditions.iter().any(|condition| match &condition.kind {
                Kind::Value(test) => test.holds(&read, raw),
                Kind::Absent => false,
            });
            if values.len() <= MAX_SHOWN_VALUES {
                values.push(cut(&String::from_utf8_lossy(leaf)));
            }
            false
        });
        holds |= !present && field.conditions.iter().any(|condition| matches!(condition.kind, Kind::Absent));
        if values.len() > MAX_SHOWN_VALUES {
            values.truncate(MAX_SHOWN_VALUES);
            values.push("...".to_owned());
        }
        let found = if present { values.join(", ") } else { "absent".to_owned() };
        let wanted: Vec<_> = field.conditions.iter().map(|condition| cut(&condition.text)).collect();
        steps.push(Step::new(depth, holds, format!("{} is {found}, wanted [{}]", field.path, wanted.join(", "))));
        all &= holds;
    }
    for or in &pattern.ors {
        let mut inner = Vec::new();
        let mut any = false;
        for (index, branch) in or.branches.iter().enumerate() {
            let mut below = Vec::new();
            let holds = parts(branch, raw, depth + 2, &mut below);
            inner.push(Step::new(depth + 1, holds, format!("alternative {index}")));
            inner.append(&mut below);
            any |= holds;
        }
        let text = format!("{} of {} alternatives holds", if any { "one" } else { "none" }, or.branches.len());
        steps.push(Step::new(depth, any, text));
        steps.append(&mut inner);
        all &= any;
    }
    all
}

fn shown(text: &str) -> String {
    cut(&format!("{text:?}"))
}

/// One line, not too long.
fn cut(text: &str) -> String {
    alert::shown(&text.split_whitespace().collect::<Vec<_>>().join(" "), MAX_SHOWN_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `rule_loading`.
    #[test]
    fn a_step_is_one_line_whatever_it_quotes() {
        let rules = "{\"events\": [{\"id\": \"a\", \"severity\": \"LOW\", \"unless\": [{\"reason\": \"u\\u0085v\", \"eventName\": \"x\"}], \
                     \"eventName\": \"a\\u202e\", \"pattern\": {\"res\u{7f}urces\": {\"\\u2028\": [{\"prefix\": \"p\u{7f}\\u009b\"}]}}}]}";
        let explainer = Explainer::new(rules, &Surroundings::default()).unwrap();
        let records = [
            "{\"eventName\": \"a\\u202e\", \"res\u{7f}urces\": {\"\u{2028}\": \"p\u{7f}\u{9b}\"}}",
            "{\"eventName\": \"\u{9b}\"}",
        ];
        for record in records {
            let told = explainer.explain("a", record.as_bytes()).unwrap();
            for step in &told.steps {
                assert!(step.text.is_ascii() && !step.text.contains(char::is_control), "{:?}", step.text);
            }
            assert!(told.steps.len() > 1);
        }
        assert_eq!(explainer.explain("a", records[0].as_bytes()).unwrap().verdict, Verdict::Matches);
    }
}
