//! The Detection Finding (2004) of the [Open Cybersecurity Schema Framework][schema] 1.5.0, with its profile `cloud`.
//!
//! [schema]: https://schema.ocsf.io/1.5.0/classes/detection_finding?profiles=cloud

use core::net::IpAddr;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::correlation;
use super::document::{place, record};
use super::group::GroupDocument;
use super::render::{Detail, MAX_RULE_ID};
use super::sentence::sentence;
use super::text::{shown, visible_json};
use super::told::{Told, ToldRule, console_link, text_at};
use super::{DetectedEvent, Outcome};
use crate::cloudtrail::json as record_json;
use crate::rules::Severity;
use crate::tracker::Crossing;

const VERSION: &str = "1.5.0";
const CLASS: u32 = 2004;

const MAX_VALUE: usize = 256;
const MAX_RULES: usize = 50;
const MAX_RESOURCES: usize = 20;
const MAX_TECHNIQUES: usize = 20;

/// What has happened to a finding.
#[derive(Clone, Copy)]
pub(super) enum Activity {
    Create,
    /// Another step of a group or a key that was told before.
    Update,
}

/// The finding, in the order in which it is read.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the schema's own names")]
pub(super) struct Finding<'a> {
    activity_id: u32,
    activity_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    type_uid: u32,
    type_name: String,
    severity_id: u32,
    severity: &'static str,
    status_id: u32,
    status: &'static str,
    is_alert: bool,
    time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    message: String,
    metadata: Value,
    finding_info: Value,
    cloud: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidences: Vec<Evidence<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remediation: Option<Value>,
    unmapped: Value,
}

#[derive(Serialize)]
struct Evidence<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_request: Option<Value>,
    /// The record.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// What every finding has.
pub(super) struct Common {
    pub(super) alert_id: String,
    pub(super) activity: Activity,
    pub(super) severity: Severity,
    pub(super) at: OffsetDateTime,
    pub(super) detected_at: OffsetDateTime,
    pub(super) count: Option<u64>,
    pub(super) message: String,
    /// Of `finding_info`, beside its times.
    pub(super) info: Vec<(&'static str, Value)>,
    pub(super) original_time: Option<String>,
    pub(super) account: Option<String>,
    pub(super) region: Option<String>,
    pub(super) unmapped: Value,
}

/// The finding as JSON text, without hidden characters.
pub(super) fn finding(told: &Told<'_>, detail: Detail) -> String {
    let event = told.event;
    let facts = &event.facts;
    let rules: Vec<&ToldRule<'_>> = told.rules.iter().take(detail.rules.min(MAX_RULES)).collect();
    let record = detail.record.then(|| record(&event.record)).flatten();
    let activity = match told.crossing {
        Some(crossing) if crossing.step > 1 => Activity::Update,
        _ => Activity::Create,
    };
    let api = api(told);
    let evidence = Evidence {
        api: api.clone(),
        actor: actor(told),
        src_endpoint: source(event),
        http_request: facts.user_agent.as_ref().map(|agent| json!({ "user_agent": agent })),
        data: record,
    };
    // The schema asks an evidence for one of these.
    let has_evidence = evidence.api.is_some()
        || evidence.actor.is_some()
        || evidence.src_endpoint.is_some()
        || evidence.data.is_some();
    let mut unmapped = object([
        ("alert_id", Some(json!(told.alert.alert_id))),
        ("event_id", Some(json!(event.key.event_id))),
        ("outcome", Some(json!(facts.outcome.as_str()))),
        ("source", serde_json::to_value(place(&event.source)).ok()),
        ("rules", Some(rules.iter().map(|rule| json!(shown(rule.id, MAX_RULE_ID))).collect())),
        ("truncated", Some(json!(record.is_none() || rules.len() < told.rules.len()))),
    ]);
    if let (Value::Object(members), Some(crossing)) = (&mut unmapped, told.crossing) {
        let (name, document) = match correlation::document(crossing) {
            Some(document) => ("correlation", serde_json::to_value(document)),
            None => ("group", serde_json::to_value(GroupDocument::new(crossing))),
        };
        members.extend(document.ok().map(|document| (name.to_owned(), document)));
    }
    let common = Common {
        alert_id: told.alert.alert_id.clone(),
        activity,
        severity: told.severity,
        at: facts.event_time.unwrap_or(event.detected_at),
        detected_at: event.detected_at,
        count: told.crossing.map(events),
        message: sentence(told, shown),
        info: information(told, &rules, detail),
        original_time: facts.event_time.map(|_| event.key.timestamp.clone()),
        account: facts.account_id.clone(),
        region: facts.region.clone(),
        unmapped,
    };
    let finding = Finding {
        api,
        resources: resources(told),
        evidences: if has_evidence { vec![evidence] } else { Vec::new() },
        remediation: remediation(&rules, detail),
        ..common.finding()
    };
    text(&finding)
}

/// As JSON text, without hidden characters.
pub(super) fn text(finding: &Finding<'_>) -> String {
    // Strings, numbers and valid JSON always serialise.
    visible_json(serde_json::to_string(finding).unwrap_or_default())
}

impl Common {
    pub(super) fn finding(self) -> Finding<'static> {
        let (activity_id, activity_name) = match self.activity {
            Activity::Create => (1, "Create"),
            Activity::Update => (2, "Update"),
        };
        let (severity_id, severity) = match self.severity {
            Severity::Low => (2, "Low"),
            Severity::Medium => (3, "Medium"),
            Severity::High => (4, "High"),
            Severity::Critical => (5, "Critical"),
        };
        let detected = milliseconds(self.detected_at);
        let mut info = object([("created_time", Some(json!(detected)))]);
        if let Value::Object(members) = &mut info {
            members.extend(self.info.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        let account = self.account.map(|account| json!({ "uid": account, "type": "AWS Account", "type_id": 10 }));
        Finding {
            activity_id,
            activity_name,
            category_uid: 2,
            category_name: "Findings",
            class_uid: CLASS,
            class_name: "Detection Finding",
            type_uid: CLASS * 100 + activity_id,
            type_name: format!("Detection Finding: {activity_name}"),
            severity_id,
            severity,
            status_id: 1,
            status: "New",
            is_alert: true,
            time: milliseconds(self.at),
            count: self.count,
            message: self.message,
            metadata: object([
                ("version", Some(json!(VERSION))),
                ("uid", Some(json!(self.alert_id))),
                ("product", Some(product())),
                ("profiles", Some(json!(["cloud"]))),
                ("log_provider", Some(json!("AWS"))),
                ("log_name", Some(json!("CloudTrail"))),
                ("logged_time", Some(json!(detected))),
                ("original_time", self.original_time.map(Value::from)),
            ]),
            finding_info: info,
            cloud: object([
                ("provider", Some(json!("AWS"))),
                ("account", account),
                ("region", self.region.map(Value::from)),
            ]),
            api: None,
            resources: Vec::new(),
            evidences: Vec::new(),
            remediation: None,
            unmapped: self.unmapped,
        }
    }
}

pub(super) fn product() -> Value {
    json!({ "name": "trailhound", "vendor_name": "trailhound", "version": env!("CARGO_PKG_VERSION") })
}

fn information(told: &Told<'_>, rules: &[&ToldRule<'_>], detail: Detail) -> Vec<(&'static str, Value)> {
    let gravest = rules.first();
    let title = gravest.and_then(|rule| rule.title()).map(|title| shown(title, detail.text));
    let description = gravest.and_then(|rule| rule.description()).map(|text| shown(text, detail.text));
    // One finding for a group, which its later steps update.
    let uid = told.crossing.map_or_else(|| told.alert.alert_id.clone(), |_| told.thread());
    let mut types: Vec<String> = rules.iter().flat_map(|rule| rule.tags()).map(|tag| shown(tag, 64)).collect();
    types.sort_unstable();
    types.dedup();
    types.truncate(MAX_TECHNIQUES);
    let mut analytics = rules.iter().map(|rule| {
        object([
            ("uid", Some(json!(shown(rule.id, MAX_RULE_ID)))),
            ("name", Some(json!(rule.title().map_or_else(|| shown(rule.id, MAX_RULE_ID), |title| shown(title, 64))))),
            ("type", Some(json!("Rule"))),
            ("type_id", Some(json!(1))),
        ])
    });
    let first = analytics.next();
    let related: Vec<Value> = analytics.collect();
    let attacks: Vec<Value> =
        rules.iter().flat_map(|rule| rule.attack().iter().map(|technique| attack(technique, rule))).collect();
    let mut once: Vec<Value> = Vec::new();
    for attack in attacks {
        if once.len() < MAX_TECHNIQUES && !once.contains(&attack) {
            once.push(attack);
        }
    }
    let times = told.crossing.map(|crossing| [crossing.state.first.as_str(), crossing.state.last.as_str()]);
    let time = |at: usize| times.and_then(|times| times.get(at).and_then(|text| parsed(text))).map(Value::from);
    let present = |values: Vec<Value>| (!values.is_empty()).then(|| Value::from(values));
    let all = [
        ("uid", Some(json!(uid))),
        ("title", Some(json!(title.unwrap_or_else(|| sentence(told, shown))))),
        ("desc", description.map(Value::from)),
        ("types", present(types.into_iter().map(Value::from).collect())),
        ("analytic", first),
        ("related_analytics", present(related)),
        ("attacks", present(once)),
        ("data_sources", Some(json!(["AWS CloudTrail"]))),
        ("first_seen_time", time(0)),
        ("last_seen_time", time(1)),
        ("src_url", console_link(told).map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `T1098.001` is a technique and the part of it.
fn attack(technique: &str, rule: &ToldRule<'_>) -> Value {
    let whole = technique.split('.').next().unwrap_or_default();
    let part = technique.contains('.').then(|| json!({ "uid": shown(technique, 16) }));
    object([
        ("technique", Some(json!({ "uid": shown(whole, 16) }))),
        ("sub_technique", part),
        ("version", rule.attack_version().map(|version| json!(shown(version, 16)))),
    ])
}

fn remediation(rules: &[&ToldRule<'_>], detail: Detail) -> Option<Value> {
    let check = rules.iter().find_map(|rule| rule.check());
    let check = check.map(|check| format!("Check first: {}", shown(check, detail.text)));
    let runbooks = rules.iter().filter_map(|rule| rule.runbook()).take(5).map(|text| shown(text, detail.text));
    let runbooks: Vec<String> = runbooks.collect();
    let text = check.or_else(|| runbooks.first().cloned())?;
    Some(object([("desc", Some(json!(text))), ("references", (!runbooks.is_empty()).then(|| json!(runbooks)))]))
}

fn api(told: &Told<'_>) -> Option<Value> {
    let facts = &told.event.facts;
    let operation = facts.event_name.as_ref()?;
    let request = told.record.text(&["requestID"]).map(|id| json!({ "uid": shown(&id, MAX_VALUE) }));
    let response = (facts.outcome != Outcome::Success).then(|| {
        object([
            ("error", facts.error_code.clone().map(Value::from)),
            ("error_message", facts.error_message.clone().map(Value::from)),
            ("message", Some(json!(facts.outcome.as_str()))),
        ])
    });
    Some(object([
        ("operation", Some(json!(operation))),
        ("service", facts.event_source.as_ref().map(|source| json!({ "name": source }))),
        ("request", request),
        ("response", response),
    ]))
}

fn actor(told: &Told<'_>) -> Option<Value> {
    let facts = &told.event.facts;
    let name = facts.actor.as_ref()?;
    let identity = told.record.get("userIdentity");
    let of = |path: &[&str]| text_at(identity, path).map(|text| json!(shown(&text, MAX_VALUE)));
    let (type_id, kind) = match facts.user_identity_type.as_deref() {
        None => (0, "Unknown"),
        Some("Root") => (2, "Admin"),
        Some("IAMUser" | "IdentityCenterUser" | "SAMLUser" | "WebIdentityUser") => (1, "User"),
        Some("AWSService") => (3, "System"),
        Some(other) => (99, other),
    };
    let account = of(&["accountId"]).map(|uid| json!({ "uid": uid, "type": "AWS Account", "type_id": 10 }));
    let user = object([
        ("name", Some(json!(name))),
        ("uid", of(&["arn"]).or_else(|| of(&["principalId"]))),
        ("uid_alt", of(&["principalId"])),
        ("type", Some(json!(kind))),
        ("type_id", Some(json!(type_id))),
        ("credential_uid", of(&["accessKeyId"])),
        ("account", account),
    ]);
    let attribute = |name: &str| text_at(identity, &["sessionContext", "attributes", name]);
    let session = object([
        ("issuer", of(&["sessionContext", "sessionIssuer", "arn"])),
        ("created_time", attribute("creationDate").and_then(|text| parsed(&text)).map(Value::from)),
        ("is_mfa", attribute("mfaAuthenticated").map(|text| json!(text == "true"))),
    ]);
    let has_session = session.as_object().is_some_and(|session| !session.is_empty());
    Some(object([("user", Some(user)), ("session", has_session.then_some(session)), ("app_name", of(&["invokedBy"]))]))
}

/// Where the call came from: an address, or the name of a service.
fn source(event: &DetectedEvent) -> Option<Value> {
    let text = event.facts.source_ip.as_deref()?;
    let name = if text.parse::<IpAddr>().is_ok() { "ip" } else { "svc_name" };
    Some(json!({ name: text }))
}

fn resources(told: &Told<'_>) -> Vec<Value> {
    let all = record_json::elements(told.record.get("resources")).filter_map(|resource| {
        let of = |name: &str| text_at(resource, &[name]).map(|text| json!(shown(&text, MAX_VALUE)));
        let owner = of("accountId").map(|uid| json!({ "account": { "uid": uid } }));
        Some(object([("uid", Some(of("ARN")?)), ("type", of("type")), ("owner", owner)]))
    });
    all.take(MAX_RESOURCES).collect()
}

/// How many events are told.
fn events(crossing: &Crossing) -> u64 {
    match correlation::document(crossing) {
        Some(document) => document.count(),
        None => crossing.state.count,
    }
}

fn parsed(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(milliseconds)
}

fn milliseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// An object of those members that are there.
pub(super) fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let present = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}
