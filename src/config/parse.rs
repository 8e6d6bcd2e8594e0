//! From a raw value to a checked one. Every error says what would be right.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::value::Value;

use super::LogFormat;
use crate::alert::AlertFormat;
use crate::reload::RulePath;

const SECOND: u64 = 1_000;
const UNITS_OF_TIME: [(&str, u64); 5] =
    [("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", 3_600 * SECOND), ("d", 86_400 * SECOND)];
const UNITS_OF_SIZE: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// A value as it stood in a layer.
pub(super) struct Raw {
    pub value: Value,
    /// Everything in the environment is text; in a file a number must be a number.
    pub from_env: bool,
}

impl Raw {
    pub fn text(&self) -> Result<&str, String> {
        self.value.as_str().ok_or_else(|| format!("must be a string in quotes, not {}", kind(&self.value)))
    }

    pub fn rule_path(&self) -> Result<RulePath, String> {
        self.text()?.parse()
    }

    pub fn boolean(&self) -> Result<bool, String> {
        match self.value.as_str().filter(|_| self.from_env) {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("must be true or false, not {other:?}")),
            None => self.value.to_bool().ok_or_else(|| format!("must be true or false, not {}", kind(&self.value))),
        }
    }

    pub fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Result<T, String> {
        let number = match self.value.as_str().filter(|_| self.from_env) {
            Some(text) => text.parse().ok(),
            None => unsigned(&self.value),
        };
        number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            format!("must be a whole number from {} to {}, not {}", range.start(), range.end(), shown(&self.value))
        })
    }

    /// Milliseconds to days.
    pub fn duration(&self) -> Result<Duration, String> {
        self.value.as_str().and_then(|text| scaled(text, &UNITS_OF_TIME)).map(Duration::from_millis).ok_or_else(|| {
            format!("must be a duration such as \"500ms\", \"20s\", \"5m\" or \"12h\", not {}", shown(&self.value))
        })
    }

    /// What SQS counts in: whole seconds within a range.
    pub fn seconds(&self, range: RangeInclusive<u64>) -> Result<Duration, String> {
        let duration = self.duration()?;
        let [least, most] = [range.start(), range.end()].map(|seconds| Duration::from_secs(*seconds));
        if duration.subsec_millis() == 0 && (least..=most).contains(&duration) {
            return Ok(duration);
        }
        Err(format!(
            "must be whole seconds from {} to {}, not {}",
            show_duration(least),
            show_duration(most),
            show_duration(duration)
        ))
    }

    /// Bytes, at least one.
    pub fn size(&self) -> Result<u64, String> {
        let bytes = match self.value.as_str() {
            Some(text) => scaled(text, &UNITS_OF_SIZE),
            None => unsigned(&self.value),
        };
        bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
            format!(
                "must be at least one byte, written as 65536, \"64KiB\", \"64MiB\" or \"1GiB\", not {}",
                shown(&self.value)
            )
        })
    }

    /// A size that is held in memory.
    pub fn held_size(&self) -> Result<usize, String> {
        let bytes = self.size()?;
        let fits = usize::try_from(bytes).ok().filter(|_| bytes <= 1 << 30);
        fits.ok_or_else(|| format!("must be at most 1GiB, not {}", show_size(bytes)))
    }

    pub fn list(&self) -> Result<Vec<String>, String> {
        if let Some(text) = self.value.as_str().filter(|_| self.from_env) {
            let items: Vec<String> =
                text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
            // An allow-list of commas would allow everything.
            return if items.is_empty() {
                Err(format!("must be names with commas between, not {text:?}"))
            } else {
                Ok(items)
            };
        }
        let expected = || format!("must be a list of strings such as [\"one\", \"two\"], not {}", kind(&self.value));
        let items = self.value.as_array().ok_or_else(expected)?;
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(expected)).collect()
    }

    pub fn alert_format(&self) -> Result<AlertFormat, String> {
        let text = self.text()?;
        let known = AlertFormat::ALL.into_iter().find(|format| format.as_str().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("must be \"json\", \"chatbot\" or \"ocsf\", not {text:?}"))
    }

    pub fn log_format(&self) -> Result<LogFormat, String> {
        let text = self.text()?;
        let known = LogFormat::ALL.into_iter().find(|format| format.as_str().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("must be \"auto\", \"json\" or \"text\", not {text:?}"))
    }
}

/// The URL of a queue, as `GetQueueUrl` returns it.
pub(crate) fn queue_url(text: &str) -> Result<String, String> {
    const HINT: &str = "the URL of an SQS queue looks like https://sqs.eu-west-1.amazonaws.com/111122223333/trailhound";
    if text.contains('@') {
        // Without the text: it would put the credentials into a log.
        return Err(format!("holds an '@': AWS credentials come from the SDK's own chain, not from here; {HINT}"));
    }
    if text.starts_with("arn:") {
        return Err(format!("{text:?} is an ARN; {HINT}"));
    }
    let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL ({error}); {HINT}"))?;
    let host = uri.host().unwrap_or_default();
    if !matches!(uri.scheme_str(), Some("http" | "https")) || host.is_empty() {
        return Err(format!("{text:?} does not start with http:// or https:// and a host; {HINT}"));
    }
    if uri.path().trim_matches('/').is_empty() || uri.query().is_some() {
        return Err(format!("{text:?} does not end in the name of a queue; {HINT}"));
    }
    Ok(text.to_owned())
}

/// The ARN of an SNS topic.
pub(super) fn topic_arn(text: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        let stem = name.strip_suffix(".fifo").unwrap_or(name);
        (1..=256).contains(&name.len()) && is_made_of(stem, "-_")
    };
    let parts: Vec<&str> = text.split(':').collect();
    let right = matches!(parts.as_slice(), ["arn", partition, "sns", region, account, name]
        if partition.starts_with("aws")
            && is_made_of(region, "-")
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && is_name(name));
    if right {
        return Ok(text.to_owned());
    }
    let what = match parts.as_slice() {
        ["arn", _, "sns", _, _, _, _] => "the ARN of a subscription, not of its topic",
        _ => "not the ARN of an SNS topic",
    };
    Err(format!("{text:?} is {what}; it looks like arn:aws:sns:eu-west-1:111122223333:trailhound-alerts"))
}

/// `DynamoDB`'s naming rules: 3 to 255 of letters, digits, `_`, `-` and `.`.
pub(super) fn table_name(text: &str) -> Result<String, String> {
    if (3..=255).contains(&text.len()) && is_made_of(text, "-_.") {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not the name of a DynamoDB table: 3 to 255 letters, digits, '_', '-' and '.'"))
}

/// S3's naming rules, those of old buckets included.
pub(super) fn bucket_names(names: Vec<String>) -> Result<Vec<String>, String> {
    match names.iter().find(|name| !(3..=255).contains(&name.len()) || !is_made_of(name, "-_.")) {
        None => Ok(names),
        Some(wrong) => Err(format!(
            "{wrong:?} is not the name of a bucket: 3 to 63 letters, digits, '-' and '.', without \"s3://\" or a path"
        )),
    }
}

/// `CloudWatch`'s rules for the namespace of custom metrics.
pub(super) fn metric_namespace(text: &str) -> Result<String, String> {
    if text.starts_with("AWS/") {
        return Err(format!("{text:?} starts with \"AWS/\", which CloudWatch keeps for AWS's own metrics"));
    }
    let right = text.len() <= 255 && is_made_of(text, ".-_/#: ") && is_told(text);
    if right {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not a CloudWatch namespace: 1 to 255 letters, digits, '.', '-', '_', '/', '#', ':' and spaces, \
         not all of them spaces, the first not ':'"
    ))
}

/// `CloudWatch`'s rules for the value of a dimension.
pub(super) fn dimension_value(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if text.len() <= 1024 && printable && is_told(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not the value of a CloudWatch dimension: 1 to 1024 printable ASCII characters, not all of them \
         spaces, the first not ':'"
    ))
}

/// Neither blank nor with a leading colon, which `CloudWatch` refuses everywhere.
fn is_told(text: &str) -> bool {
    !text.trim().is_empty() && !text.starts_with(':')
}

pub(super) fn listen(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address and a port; write \"0.0.0.0:8080\", \"127.0.0.1:8080\" or \"[::]:8080\"")
    })
}

/// The shortest text that [`Raw::duration`] reads as `duration`.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Days are left out: "24h" is easier to compare with "12h".
    let units = UNITS_OF_TIME.iter().rev().skip(1);
    units
        .clone()
        .find(|(_, scale)| millis > 0 && millis.is_multiple_of(*scale))
        .map_or_else(|| format!("{}s", millis / SECOND), |(unit, scale)| format!("{}{unit}", millis / scale))
}

/// The shortest text that [`Raw::size`] reads as `bytes`.
pub(super) fn show_size(bytes: u64) -> String {
    UNITS_OF_SIZE
        .iter()
        .find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale))
        .map_or_else(|| bytes.to_string(), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

fn is_made_of(text: &str, also: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit_at)?;
    let (_, scale) = units.iter().find(|(known, _)| *known == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn unsigned(value: &Value) -> Option<u64> {
    value.to_num().and_then(figment::value::Num::to_u128_lossy).and_then(|number| u64::try_from(number).ok())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a string",
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

fn shown(value: &Value) -> String {
    let number = |shown: &dyn Display| shown.to_string();
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Num(_, n) => n
            .to_i128()
            .map(|n| number(&n))
            .or_else(|| n.to_f64().map(|n| number(&n)))
            .unwrap_or_else(|| "a number".into()),
        other => kind(other).to_owned(),
    }
}
