//! CloudTrail: trails as they are described. None of them records anything.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use winterbaume_core::MockResponse;

use super::{ACCOUNT, wire};
use crate::env::lock;

pub(super) struct Trails {
    region: String,
    /// By name.
    trails: Mutex<BTreeMap<String, Trail>>,
}

struct Trail {
    described: Map<String, Value>,
    selectors: Value,
    logging: bool,
    /// As if it delivered whenever it is started. Seconds since the epoch.
    delivered: Option<i64>,
}

type Answer = Result<Value, (&'static str, String)>;

impl Trails {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), trails: Mutex::default() }
    }

    pub(super) fn answer(&self, operation: &str, body: &[u8]) -> MockResponse {
        let Ok(Value::Object(input)) = serde_json::from_slice(body) else {
            return wire::error("cloudtrail", 400, "SerializationException", "the body is no JSON object");
        };
        let mut trails = lock(&self.trails);
        let answered = match operation {
            "CreateTrail" => self.create(&mut trails, input),
            "DescribeTrails" => {
                Ok(json!({ "trailList": trails.values().map(|trail| &trail.described).collect::<Vec<_>>() }))
            }
            "UpdateTrail" => trail(&mut trails, &input).map(|trail| {
                for (name, value) in settings(input) {
                    trail.described.insert(name, value);
                }
                json!(trail.described)
            }),
            "StartLogging" => trail(&mut trails, &input).map(|trail| {
                trail.logging = true;
                trail.delivered = Some(OffsetDateTime::now_utc().unix_timestamp());
                json!({})
            }),
            "StopLogging" => trail(&mut trails, &input).map(|trail| {
                trail.logging = false;
                json!({})
            }),
            "GetTrailStatus" => trail(&mut trails, &input).map(|trail| match trail.delivered {
                Some(at) => json!({ "IsLogging": trail.logging, "LatestDeliveryTime": at }),
                None => json!({ "IsLogging": trail.logging }),
            }),
            "PutEventSelectors" => trail(&mut trails, &input).map(|trail| {
                trail.selectors = json!({
                    "EventSelectors": input.get("EventSelectors"),
                    "AdvancedEventSelectors": input.get("AdvancedEventSelectors"),
                });
                json!({})
            }),
            "GetEventSelectors" => trail(&mut trails, &input).map(|trail| trail.selectors.clone()),
            _ => Err(("InvalidAction", format!("the emulator's CloudTrail does not know {operation}"))),
        };
        match answered {
            Ok(output) => MockResponse::json(200, output.to_string()),
            Err((code, message)) => wire::error("cloudtrail", 400, code, &message),
        }
    }

    fn create(&self, trails: &mut BTreeMap<String, Trail>, input: Map<String, Value>) -> Answer {
        let name = input.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() || input.get("S3BucketName").and_then(Value::as_str).is_none() {
            return Err(("InvalidTrailNameException", "a trail needs Name and S3BucketName".to_owned()));
        }
        if trails.contains_key(&name) {
            return Err(("TrailAlreadyExistsException", format!("Trail {name} already exists")));
        }
        let mut described = Map::new();
        described.insert("Name".to_owned(), json!(name));
        described.insert("HomeRegion".to_owned(), json!(self.region));
        described
            .insert("TrailARN".to_owned(), json!(format!("arn:aws:cloudtrail:{}:{ACCOUNT}:trail/{name}", self.region)));
        described.insert("IncludeGlobalServiceEvents".to_owned(), json!(true));
        described.extend(settings(input));
        let output = json!(described);
        let selectors = json!({ "EventSelectors": [{ "ReadWriteType": "All", "IncludeManagementEvents": true }] });
        trails.insert(name, Trail { described, selectors, logging: false, delivered: None });
        Ok(output)
    }
}

/// By name or ARN.
fn trail<'a>(
    trails: &'a mut BTreeMap<String, Trail>,
    input: &Map<String, Value>,
) -> Result<&'a mut Trail, (&'static str, String)> {
    let wanted = input.get("Name").or_else(|| input.get("TrailName")).and_then(Value::as_str).unwrap_or_default();
    let name = wanted.rsplit('/').next().unwrap_or_default();
    trails.get_mut(name).ok_or_else(|| ("TrailNotFoundException", format!("Unknown trail: {wanted}")))
}

/// What a request says, under the names of the descriptions.
fn settings(input: Map<String, Value>) -> impl Iterator<Item = (String, Value)> {
    input.into_iter().filter(|(name, _)| name != "Name").map(|(name, value)| match name.as_str() {
        "EnableLogFileValidation" => ("LogFileValidationEnabled".to_owned(), value),
        _ => (name, value),
    })
}
