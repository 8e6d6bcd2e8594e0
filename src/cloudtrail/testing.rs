//! What the tests of this folder and the fuzz targets share: JSON values, their spellings, compressors, and a reader of
//! whole objects.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use compression_codecs::core::util::PartialBuffer;
use compression_codecs::{Encode as _, ZstdEncoder};
use proptest::prelude::*;
use serde_json::Value;

use super::outline::Outline;
use super::{DecodeError, Decoder, Input, Limits, Output, RecordProblem, STEP_BYTES, Step};
use crate::rules::{Matcher, RuleInfo, RuleSet, Severity};

/// Any JSON value, with strings that are hard on a scanner.
pub(super) fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), r#"[{}\[\]",:\\ua0\n\x00é😀-]{0,12}"#];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // As many digits as serde_json reads exactly.
        (any::<i32>(), 0..9).prop_map(|(digits, scale)| Value::from(f64::from(digits) / 10_f64.powi(scale))),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same value as another library might write it: spaces, every character escaped, keys in another order.
pub(super) fn respell(value: &Value) -> String {
    let string = |text: &str| {
        let units = text.encode_utf16().fold(String::new(), |all, unit| all + &format!("\\u{unit:04X}"));
        format!("\"{units}\"")
    };
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => format!("[ {} ]", items.iter().map(respell).collect::<Vec<_>>().join(" ,\n")),
        Value::Object(members) => {
            let members = members.iter().rev().map(|(key, value)| format!("{}\t: {}", string(key), respell(value)));
            format!("\r\n{{{} }}", members.collect::<Vec<_>>().join(" , "))
        }
        Value::Number(number) if number.is_f64() => format!("{:e}", number.as_f64().unwrap()),
        other => other.to_string(),
    }
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(3);
    let mut input = PartialBuffer::new(text);
    let mut all = Vec::new();
    loop {
        let mut output = PartialBuffer::new([0; 4096]);
        let done = if input.unwritten().is_empty() {
            encoder.finish(&mut output).unwrap()
        } else {
            encoder.encode(&mut input, &mut output).unwrap();
            false
        };
        all.extend_from_slice(output.written());
        if done {
            return all;
        }
    }
}

/// What a decoder made of an object.
#[derive(Debug, PartialEq)]
pub(crate) struct Read {
    pub(crate) records: Vec<(u64, Bytes)>,
    pub(crate) problems: Vec<RecordProblem>,
    pub(crate) problem_count: u64,
    pub(crate) ending: Result<(), DecodeError>,
}

/// Reads an object that arrives in chunks of these lengths (and again, until it is whole), every record a match.
pub(crate) fn read_every_record(object: &[u8], cuts: &[usize], limits: Limits) -> Read {
    let every = vec![Arc::new(RuleInfo::new("any", Severity::Low, ""))];
    let mut decoder = Decoder::new(limits);
    let (mut out, mut records) = (Output::default(), Vec::new());
    let mut object = Bytes::copy_from_slice(object);
    let (mut input, mut cuts) = (Input::default(), cuts.iter().cycle());
    let ending = loop {
        let step = decoder.step_with(STEP_BYTES, &mut input, &mut |_, _| every.clone(), &mut out);
        records.extend(out.detections.drain(..).map(|found| (found.index, found.raw)));
        match step {
            Ok(Step::NeedInput) => {
                assert!(input.bytes.is_empty() && !input.last, "asks for more than there is");
                let length = cuts.next().map_or(object.len(), |&cut| cut.min(object.len()));
                input = Input { bytes: object.split_to(length), last: object.is_empty() };
            }
            Ok(Step::Yield) => {}
            Ok(Step::End) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert_eq!(decoder.progress().records, records.len() as u64 + out.problem_count, "records are lost or made up");
    Read { records, problems: out.problems, problem_count: out.problem_count, ending }
}

/// A record that rules match.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) index: u64,
    pub(crate) raw: Bytes,
    pub(crate) rules: Vec<String>,
}

/// What rules find in an object, by way of the prefilter or with every record read whole.
pub(crate) fn detect(object: &[u8], rules: &Arc<RuleSet>, prefilter: bool, limits: Limits) -> Vec<Found> {
    let (mut decoder, mut matcher) = (Decoder::new(limits), Matcher::new(Arc::clone(rules)));
    let (mut out, mut input) = (Output::default(), Input { bytes: Bytes::copy_from_slice(object), last: true });
    let mut judge = |raw: &[u8], outline: Option<Outline<'_>>| {
        if prefilter { matcher.matches_outlined(raw, outline) } else { matcher.matches(raw) }
    };
    while let Ok(Step::Yield) = decoder.step_with(STEP_BYTES, &mut input, &mut judge, &mut out) {}
    let ids = |rules: Vec<Arc<RuleInfo>>| rules.iter().map(|rule| rule.id.clone()).collect();
    out.detections.into_iter().map(|one| Found { index: one.index, raw: one.raw, rules: ids(one.rules) }).collect()
}
