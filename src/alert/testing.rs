//! What the tests of alerts have in common: the published schemas, in our own words.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::{AlertFormat, Outbound, PUBLISH_LIMIT, is_hidden};

static CHATBOT: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../tests/fixtures/schemas/chatbot.json")));
static OCSF: LazyLock<Validator> = LazyLock::new(|| validator(include_str!("../../tests/fixtures/schemas/ocsf.json")));

fn validator(schema: &str) -> Validator {
    jsonschema::draft202012::new(&serde_json::from_str(schema).unwrap()).unwrap()
}

/// The text `default` as JSON, once the alert was held to SNS's limits and the text to its format's schema.
pub(super) fn valid(outbound: &Outbound, format: AlertFormat) -> Value {
    assert!(outbound.size() <= PUBLISH_LIMIT, "{} bytes", outbound.size());
    let message: Value = serde_json::from_str(&outbound.message).unwrap();
    let text = message["default"].as_str().unwrap();
    assert!(!text.contains(is_hidden), "{text}");
    let document: Value = serde_json::from_str(text).unwrap();
    let schema = match format {
        AlertFormat::Json => return document,
        AlertFormat::Chatbot => &CHATBOT,
        AlertFormat::Ocsf => &OCSF,
    };
    let errors: Vec<_> =
        schema.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{document:#}");
    document
}
