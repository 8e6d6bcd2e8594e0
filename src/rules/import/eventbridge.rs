//! EventBridge rules for CloudTrail: what stands under `detail` is a pattern of ours as it is.
//!
//! Read are a bare event pattern, the output of `aws events describe-rule` and `list-rules`, and the rules of
//! `CloudFormation` templates (`AWS::Events::Rule`) in JSON or YAML. The language is that of the EventBridge user guide,
//! "Creating event patterns". The envelope is told by the record as well: `source` by eventSource, `detail-type` by
//! eventType, `account` and `region` by recipientAccountId and awsRegion.

use serde_json::{Map, Value, json};

use super::{Draft, ImportError, Outcome, Scope, is_container, yaml};

const MAX_DEPTH: usize = 32;
const MAX_RULES: usize = 10_000;
/// The detail types that CloudTrail sends, and the `eventType` of their records.
const DETAIL_TYPES: [(&str, &str); 5] = [
    ("AWS API Call via CloudTrail", "AwsApiCall"),
    ("AWS Console Sign In via CloudTrail", "AwsConsoleSignIn"),
    ("AWS Service Event via CloudTrail", "AwsServiceEvent"),
    ("AWS Console Action via CloudTrail", "AwsConsoleAction"),
    ("AWS Insight via CloudTrail", "AwsCloudTrailInsight"),
];
const ENVELOPE: [&str; 7] = ["source", "detail-type", "detail", "account", "region", "version", "$or"];

pub(super) fn rules(file: &Scope<'_>, text: &str) -> Vec<Outcome> {
    let document = match read(file, text) {
        Ok(document) => document,
        Err(error) => return vec![Err(vec![error])],
    };
    let Value::Object(members) = &document else {
        return vec![Err(vec![file.error("", "expected an event pattern, a rule or a template, an object")])];
    };
    if let Some(Value::Array(rules)) = members.get("Rules") {
        if rules.is_empty() || rules.len() > MAX_RULES {
            return vec![Err(vec![file.error("Rules", format!("expected 1 to {MAX_RULES} rules"))])];
        }
        let rules = rules.iter().enumerate();
        return rules.map(|(i, rule)| described(file, &format!("Rules[{i}]"), None, rule)).collect();
    }
    if let Some(Value::Object(resources)) = members.get("Resources") {
        let is_rule = |resource: &Value| resource.get("Type").and_then(Value::as_str) == Some("AWS::Events::Rule");
        let rules: Vec<_> = resources.iter().filter(|(_, resource)| is_rule(resource)).collect();
        if rules.is_empty() {
            return vec![Err(vec![file.error("Resources", "the template has no AWS::Events::Rule")])];
        }
        let of = |(name, resource): (&String, &Value)| {
            let place = format!("Resources.{name}.Properties");
            let nothing = Value::Null;
            described(file, &place, Some(name), resource.get("Properties").unwrap_or(&nothing))
        };
        return rules.into_iter().map(of).collect();
    }
    if members.contains_key("EventPattern") || members.contains_key("ScheduleExpression") {
        return vec![described(file, "", None, &document)];
    }
    vec![convert(file.of(file.stem()), "", members, None)]
}

fn read(file: &Scope<'_>, text: &str) -> Result<Value, ImportError> {
    let error = match serde_json::from_str(text) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    if text.trim_start().starts_with(['{', '[']) {
        let place = format!("line {}", error.line());
        return Err(file.error(place, format!("not valid JSON: {error}")));
    }
    let mut documents =
        yaml::documents(text).map_err(|error| file.error(format!("line {}", error.line), error.message))?;
    if documents.len() > 1 {
        return Err(file.error("", "several YAML documents; put each into a file of its own"));
    }
    documents.pop().ok_or_else(|| file.error("", "the file is empty"))
}

/// A rule with its properties; `resource` is its name in a template.
fn described(file: &Scope<'_>, place: &str, resource: Option<&str>, rule: &Value) -> Outcome {
    let text = |key: &str| rule.get(key).and_then(Value::as_str);
    let name = text("Name").or(resource).unwrap_or(file.stem());
    let scope = file.of(name);
    let at = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    let pattern = match rule.get("EventPattern") {
        Some(Value::Object(pattern)) => pattern.clone(),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(pattern)) => pattern,
            Ok(_) => return Err(vec![scope.error(at("EventPattern"), "an event pattern is an object")]),
            Err(error) => return Err(vec![scope.error(at("EventPattern"), format!("not valid JSON: {error}"))]),
        },
        Some(_) => return Err(vec![scope.error(at("EventPattern"), "an event pattern is an object, or its text")]),
        None => {
            let message = "the rule has no event pattern: a schedule detects nothing; leave it out of the file";
            return Err(vec![scope.error(place, message)]);
        }
    };
    let mut draft = convert(scope, &at("EventPattern"), &pattern, text("Description"))?;
    if text("State") == Some("DISABLED") {
        draft.off = true;
        draft.note("the rule is disabled: its mode is off");
    }
    if rule.get("State").is_some_and(|state| !state.is_string()) {
        draft.note("the state is computed by the template: the rule is on here");
    }
    if rule.get("Name").is_some_and(|name| !name.is_string()) {
        draft.note("the name is computed by the template: the id is that of the resource");
    }
    if rule.get("ScheduleExpression").is_some() {
        draft.note("the schedule of the rule is left out");
    }
    if text("EventBusName").is_some_and(|bus| bus != "default") {
        draft.note("the rule stands on a bus of its own; here it sees every record");
    }
    Ok(draft)
}

fn convert(scope: Scope<'_>, place: &str, pattern: &Map<String, Value>, description: Option<&str>) -> Outcome {
    let mut reader = Reader { scope, errors: Vec::new(), notes: Vec::new() };
    let mut ours = reader.envelope(place, pattern);
    if reader.errors.is_empty() && ours.is_empty() {
        reader.refuse(place, "the pattern asks for nothing: it would match every record");
    }
    if !reader.errors.is_empty() {
        return Err(reader.errors);
    }
    let mut draft = Draft { id: scope.rule.unwrap_or_default().to_owned(), ..Draft::default() };
    draft.description = description.map(str::to_owned);
    draft.event_source = take_plain(&mut ours, "eventSource");
    draft.event_name = take_plain(&mut ours, "eventName");
    draft.pattern = ours;
    for note in reader.notes {
        draft.note(note);
    }
    Ok(draft)
}

/// The values of a field, if they are exact texts that a plain condition reads the same way.
fn take_plain(pattern: &mut Map<String, Value>, key: &str) -> Vec<String> {
    let is_plain = |text: &&str| !text.is_empty() && !text.contains(['*', '?']);
    let values = pattern.get(key).and_then(Value::as_array);
    let texts = values.and_then(|values| {
        values.iter().map(|value| value.as_str().filter(is_plain).map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    match texts {
        Some(texts) if !texts.is_empty() => {
            pattern.shift_remove(key);
            texts
        }
        _ => Vec::new(),
    }
}

struct Reader<'a> {
    scope: Scope<'a>,
    errors: Vec<ImportError>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn refuse(&mut self, place: &str, message: impl Into<String>) {
        self.errors.push(self.scope.error(place, message));
    }

    /// An event pattern, or a branch of its `$or`, as a pattern on the record.
    fn envelope(&mut self, place: &str, pattern: &Map<String, Value>) -> Map<String, Value> {
        let at = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        let mut ours = Map::new();
        match pattern.get("detail") {
            None => {}
            Some(Value::Object(detail)) => {
                self.check(&at("detail"), detail, "", 0);
                ours.clone_from(detail);
            }
            Some(_) => self.refuse(&at("detail"), "detail is an object of fields"),
        }
        for (key, value) in pattern {
            let here = at(key);
            match key.as_str() {
                "detail" => {}
                "source" => self.source(&here, value, &mut ours),
                "detail-type" => self.detail_type(&here, value, &mut ours),
                "account" => self.moved(&here, value, "recipientAccountId", &mut ours),
                "region" => self.moved(&here, value, "awsRegion", &mut ours),
                "version" => self.notes.push("the version of the event is left out: it is always the same".to_owned()),
                "$or" => self.branches(&here, value, &mut ours),
                other => {
                    let message = if is_container(other) || other == "eventName" || other == "eventSource" {
                        format!("{other:?} is a field of the record; put it into \"detail\"")
                    } else {
                        format!("{other:?} is not in a record; only {} can be imported", ENVELOPE.join(", "))
                    };
                    self.refuse(&here, message);
                }
            }
        }
        ours
    }

    fn branches(&mut self, place: &str, value: &Value, ours: &mut Map<String, Value>) {
        let Some(branches) = value.as_array().filter(|branches| branches.len() > 1) else {
            return self.refuse(place, "$or takes a list of at least two patterns");
        };
        let mut read = Vec::with_capacity(branches.len());
        for (i, branch) in branches.iter().enumerate() {
            let here = format!("{place}[{i}]");
            match branch {
                Value::Object(branch) if branch.contains_key("$or") => {
                    self.refuse(&here, "$or within $or of the envelope is not read; write the branches side by side");
                }
                Value::Object(branch) => {
                    let branch = self.envelope(&here, branch);
                    if branch.is_empty() && self.errors.is_empty() {
                        self.refuse(&here, "the branch asks for nothing of the record");
                    }
                    read.push(Value::Object(branch));
                }
                _ => self.refuse(&here, "a branch of $or is an object"),
            }
        }
        self.put(place, "$or", Value::Array(read), ours);
    }

    /// Adds a condition on a field of the record that the pattern must not ask for already.
    fn put(&mut self, place: &str, field: &str, value: Value, ours: &mut Map<String, Value>) {
        if ours.contains_key(field) {
            return self.refuse(place, format!("detail asks for {field}, too; say it in one place"));
        }
        ours.insert(field.to_owned(), value);
    }

    fn moved(&mut self, place: &str, value: &Value, field: &str, ours: &mut Map<String, Value>) {
        match value {
            Value::Array(conditions) => {
                self.conditions(place, conditions);
                self.notes.push(format!("{} is asked of {field}", place.rsplit('.').next().unwrap_or(place)));
                self.put(place, field, value.clone(), ours);
            }
            _ => self.refuse(place, "expected a list of conditions"),
        }
    }

    /// `aws.iam` is what EventBridge makes of `iam.amazonaws.com`.
    fn source(&mut self, place: &str, value: &Value, ours: &mut Map<String, Value>) {
        let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_every = |value: &Value| value.get("prefix").and_then(Value::as_str) == Some("aws.");
        if !values.is_empty() && values.iter().any(is_every) {
            self.notes.push("the source is left out: every record comes from a service of AWS".to_owned());
            return;
        }
        let service =
            |value: &Value| value.as_str()?.strip_prefix("aws.").map(|service| format!("{service}.amazonaws.com"));
        let Some(sources) = values.iter().map(service).collect::<Option<Vec<_>>>().filter(|it| !it.is_empty()) else {
            return self.refuse(
                place,
                format!("the source {value} is not one of AWS's services (\"aws.iam\"): no CloudTrail rule"),
            );
        };
        let asked = ours.get("eventSource").and_then(Value::as_array);
        let asked = asked.map(|asked| asked.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match asked {
            None => {
                self.notes.push(format!("the source is asked of eventSource: {}", sources.join(", ")));
                ours.insert("eventSource".to_owned(), json!(sources));
            }
            Some(Some(asked)) => {
                let both: Vec<_> = asked.iter().filter(|asked| sources.iter().any(|source| source == *asked)).collect();
                if both.is_empty() {
                    let message = "source and detail.eventSource exclude each other: nothing would ever match";
                    return self.refuse(place, message);
                }
                let note = if both.len() == asked.len() {
                    "the source is left out: eventSource says as much"
                } else {
                    "eventSource is narrowed to what the source allows"
                };
                let both = json!(both);
                self.notes.push(note.to_owned());
                ours.insert("eventSource".to_owned(), both);
            }
            Some(None) => self.refuse(place, "source next to conditions on detail.eventSource; leave the source out"),
        }
    }

    fn detail_type(&mut self, place: &str, value: &Value, ours: &mut Map<String, Value>) {
        let values = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_every = |value: &Value| value.get("suffix").and_then(Value::as_str) == Some("via CloudTrail");
        let kind =
            |value: &Value| DETAIL_TYPES.iter().find(|(name, _)| value.as_str() == Some(name)).map(|(_, kind)| *kind);
        let every = !values.is_empty() && values.iter().all(is_every);
        let kinds = values.iter().map(kind).collect::<Option<Vec<_>>>().filter(|kinds| !kinds.is_empty());
        let Some(kinds) = kinds.or_else(|| every.then(Vec::new)) else {
            let known: Vec<_> = DETAIL_TYPES.iter().map(|(name, _)| *name).collect();
            let message =
                format!("the detail type {value} does not come from CloudTrail; known are {}", known.join(", "));
            return self.refuse(place, message);
        };
        if kinds.contains(&"AwsApiCall") {
            self.notes.push(
                "EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them".to_owned(),
            );
        }
        let names_events =
            ours.get("eventName").and_then(Value::as_array).is_some_and(|values| values.iter().all(Value::is_string));
        if every || names_events || ours.contains_key("eventType") {
            self.notes.push("the detail type is left out: the record says as much".to_owned());
        } else {
            self.notes.push("the detail type is asked of eventType".to_owned());
            ours.insert("eventType".to_owned(), json!(kinds));
        }
    }

    /// Only what EventBridge itself has: our own conditions mean nothing there.
    fn check(&mut self, place: &str, fields: &Map<String, Value>, path: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.refuse(place, "the pattern nests too deeply");
        }
        if fields.is_empty() {
            return self.refuse(place, "the object is empty");
        }
        for (key, value) in fields {
            let here = format!("{place}.{key}");
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Array(branches)
                    if key == "$or" && branches.len() > 1 && branches.iter().all(Value::is_object) =>
                {
                    for (i, branch) in branches.iter().enumerate() {
                        if let Value::Object(branch) = branch {
                            let above = path.strip_suffix("$or").unwrap_or_default().trim_end_matches('.');
                            self.check(&format!("{here}[{i}]"), branch, above, depth + 1);
                        }
                    }
                }
                Value::Array(conditions) => {
                    self.conditions(&here, conditions);
                    if is_container(&path) && conditions.iter().any(|one| one.get("exists").is_some()) {
                        self.notes.push(format!("{path} is an object: EventBridge, as we, never sees it as there"));
                    }
                }
                Value::Object(members) => match members.keys().find(|key| key.starts_with("Fn::") || *key == "Ref") {
                    Some(function) => {
                        let message =
                            format!("the template's function {function} is not computed here; write the value out");
                        self.refuse(&here, message);
                    }
                    None => self.check(&here, members, &path, depth + 1),
                },
                _ => self.refuse(&here, "expected a list of conditions, or an object of fields"),
            }
        }
    }

    fn conditions(&mut self, place: &str, conditions: &[Value]) {
        const KNOWN: [&str; 8] =
            ["prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "cidr", "exists"];
        if conditions.is_empty() {
            return self.refuse(place, "the list of conditions is empty");
        }
        for (i, condition) in conditions.iter().enumerate() {
            let here = format!("{place}[{i}]");
            match condition {
                Value::Array(_) => self.refuse(&here, "a list within the list of conditions"),
                Value::Object(members) => {
                    let Some(key) = members.keys().next().filter(|_| members.len() == 1) else {
                        self.refuse(&here, "a condition has exactly one key");
                        continue;
                    };
                    if key.starts_with("Fn::") || key == "Ref" {
                        self.refuse(
                            &here,
                            format!("the template's function {key} is not computed here; write the value out"),
                        );
                    } else if !KNOWN.contains(&key.as_str()) {
                        let message = format!("EventBridge has no condition {key:?}; known are {}", KNOWN.join(", "));
                        self.refuse(&here, message);
                    }
                }
                _ => {}
            }
        }
    }
}

#[allow(clippy::too_many_lines, reason = "lists of examples")]
#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::rules::RuleSet;
    use crate::rules::import::{Format, import, print};

    fn read(text: &str) -> String {
        match import(Format::EventBridge, "rules/root-login.json", text) {
            Ok(imported) => {
                let rules: Vec<_> = imported.iter().map(|imported| imported.rule.clone()).collect();
                let printed = print(&rules);
                RuleSet::parse(&printed).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
                let notes = imported.iter().flat_map(|imported| &imported.notes);
                notes.fold(printed, |shown, note| format!("{shown}\nnote: {note}"))
            }
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn a_bare_pattern() {
        insta::assert_snapshot!(read(&json!({
            "source": ["aws.s3"],
            "detail-type": ["AWS API Call via CloudTrail"],
            "account": ["111122223333"],
            "region": [{ "prefix": "eu-" }],
            "detail": {
                "eventSource": ["s3.amazonaws.com"],
                "eventName": ["PutBucketPolicy", "DeleteBucketPolicy"],
                "requestParameters": { "bucketName": [{ "anything-but": { "prefix": "test-" } }] },
                "userIdentity": { "$or": [{ "type": ["Root"] }, { "userName": [{ "exists": false }] }] }
            }
        }).to_string()), @r#"
        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "eventSource": "s3.amazonaws.com",
              "eventName": ["PutBucketPolicy", "DeleteBucketPolicy"],
              "pattern": {
                "requestParameters": { "bucketName": [{ "anything-but": { "prefix": "test-" } }] },
                "userIdentity": { "$or": [{ "type": ["Root"] }, { "userName": [{ "exists": false }] }] },
                "recipientAccountId": ["111122223333"],
                "awsRegion": [{ "prefix": "eu-" }]
              }
            }
          ]
        }
        note: the source is left out: eventSource says as much
        note: EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them
        note: the detail type is left out: the record says as much
        note: account is asked of recipientAccountId
        note: region is asked of awsRegion
        note: the format has no severity: MEDIUM is a guess
        "#);
    }

    #[test]
    fn the_envelope_is_asked_of_the_record() {
        let api = "AWS API Call via CloudTrail";
        let sign_in = "AWS Console Sign In via CloudTrail";
        let all: Vec<_> = [
            json!({ "source": ["aws.ec2"], "detail-type": [api], "detail": { "eventName": ["CreateRoute"] } }),
            json!({ "detail-type": [sign_in], "detail": { "userIdentity": { "type": ["Root"] } } }),
            json!({ "source": ["aws.iam", "aws.sts"], "detail-type": [api] }),
            json!({ "source": [{ "prefix": "aws." }], "detail": { "eventName": [{ "wildcard": "Delete*" }] } }),
            json!({ "source": ["aws.iam"], "detail": { "eventSource": ["iam.amazonaws.com", "sts.amazonaws.com"] } }),
            json!({ "$or": [{ "source": ["aws.iam"] }, { "detail": { "errorCode": ["AccessDenied"] } }], "detail-type": [api] }),
            json!({ "detail": { "eventName": ["Get*"] } }),
        ]
        .into_iter()
        .map(|pattern| read(&pattern.to_string()))
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "eventSource": "ec2.amazonaws.com",
              "eventName": "CreateRoute"
            }
          ]
        }
        note: the source is asked of eventSource: ec2.amazonaws.com
        note: EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them
        note: the detail type is left out: the record says as much
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "pattern": { "userIdentity": { "type": ["Root"] }, "eventType": ["AwsConsoleSignIn"] }
            }
          ]
        }
        note: the detail type is asked of eventType
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "eventSource": ["iam.amazonaws.com", "sts.amazonaws.com"],
              "pattern": { "eventType": ["AwsApiCall"] }
            }
          ]
        }
        note: the source is asked of eventSource: iam.amazonaws.com, sts.amazonaws.com
        note: EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them
        note: the detail type is asked of eventType
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "pattern": { "eventName": [{ "wildcard": "Delete*" }] }
            }
          ]
        }
        note: the source is left out: every record comes from a service of AWS
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "eventSource": "iam.amazonaws.com"
            }
          ]
        }
        note: eventSource is narrowed to what the source allows
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "pattern": {
                "$or": [{ "eventSource": ["iam.amazonaws.com"] }, { "errorCode": ["AccessDenied"] }],
                "eventType": ["AwsApiCall"]
              }
            }
          ]
        }
        note: the source is asked of eventSource: iam.amazonaws.com
        note: EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them
        note: the detail type is asked of eventType
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "root-login",
              "severity": "MEDIUM",
              "pattern": { "eventName": ["Get*"] }
            }
          ]
        }
        note: the format has no severity: MEDIUM is a guess
        "#);
    }

    #[test]
    fn rules_as_aws_describes_them_and_templates() {
        let pattern = r#"{"source": ["aws.iam"], "detail": {"eventName": ["CreateUser"]}}"#;
        let rule = json!({ "Name": "New user", "Description": "A user\nwas made", "State": "DISABLED", "EventPattern": pattern });
        let template = "
Resources:
  Topic:
    Type: AWS::SNS::Topic
  NewUser:
    Type: AWS::Events::Rule
    Properties:
      Name: !Sub '${AWS::StackName}-users'
      State: ENABLED
      EventPattern:
        source: [aws.iam]
        detail-type: ['AWS API Call via CloudTrail']
        detail:
          eventName:
            - CreateUser
          errorCode: [{exists: false}]
";
        let all: Vec<_> = [
            rule.to_string(),
            json!({ "Rules": [rule, { "Name": "b", "EventPattern": pattern, "EventBusName": "own" }] }).to_string(),
            template.to_owned(),
        ]
        .iter()
        .map(|text| read(text))
        .collect();
        insta::assert_snapshot!(all.join("\n\n"), @r#"
        {
          "events": [
            {
              "id": "New-user",
              "description": "A user was made",
              "severity": "MEDIUM",
              "mode": "off",
              "eventSource": "iam.amazonaws.com",
              "eventName": "CreateUser"
            }
          ]
        }
        note: the source is asked of eventSource: iam.amazonaws.com
        note: the rule is disabled: its mode is off
        note: the id is made from the name "New user"
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "New-user",
              "description": "A user was made",
              "severity": "MEDIUM",
              "mode": "off",
              "eventSource": "iam.amazonaws.com",
              "eventName": "CreateUser"
            },
            {
              "id": "b",
              "severity": "MEDIUM",
              "eventSource": "iam.amazonaws.com",
              "eventName": "CreateUser"
            }
          ]
        }
        note: the source is asked of eventSource: iam.amazonaws.com
        note: the rule is disabled: its mode is off
        note: the id is made from the name "New user"
        note: the format has no severity: MEDIUM is a guess
        note: the source is asked of eventSource: iam.amazonaws.com
        note: the rule stands on a bus of its own; here it sees every record
        note: the format has no severity: MEDIUM is a guess

        {
          "events": [
            {
              "id": "NewUser",
              "severity": "MEDIUM",
              "eventSource": "iam.amazonaws.com",
              "eventName": "CreateUser",
              "pattern": { "errorCode": [{ "exists": false }] }
            }
          ]
        }
        note: the source is asked of eventSource: iam.amazonaws.com
        note: EventBridge may not deliver read-only calls (Get, List, Describe); here the rule sees them
        note: the detail type is left out: the record says as much
        note: the name is computed by the template: the id is that of the resource
        note: the format has no severity: MEDIUM is a guess
        "#);
    }

    #[test]
    fn what_is_no_cloudtrail_rule_or_not_known_is_refused() {
        let all: Vec<_> = [
            "{".to_owned(),
            "a: [".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            json!({ "source": ["my.app"], "detail": { "a": ["b"] } }).to_string(),
            json!({ "source": ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"] }).to_string(),
            json!({ "resources": ["arn:aws:s3:::x"], "eventName": ["A"] }).to_string(),
            json!({ "detail": { "a": "b", "c": [], "d": {}, "e": [{ "regex": "x" }, [1]], "f": [{ "prefix": "a", "suffix": "b" }] } })
                .to_string(),
            json!({ "source": ["aws.iam"], "detail": { "eventSource": ["sts.amazonaws.com"] } }).to_string(),
            json!({ "account": ["1"], "detail": { "recipientAccountId": ["2"] } }).to_string(),
            json!({ "$or": [{ "source": ["aws.iam"] }] }).to_string(),
            json!({ "Name": "nightly", "ScheduleExpression": "rate(1 day)" }).to_string(),
            json!({ "Rules": [{ "Name": "a", "EventPattern": "{" }, { "Name": "b" }] }).to_string(),
            json!({ "Resources": { "Bucket": { "Type": "AWS::S3::Bucket" } } }).to_string(),
            "Resources:\n  R:\n    Type: AWS::Events::Rule\n    Properties:\n      EventPattern:\n        detail:\n          a: [!Ref B]\n          c: !GetAtt D.E\n".to_owned(),
        ]
        .iter()
        .map(|text| read(text))
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        rules/root-login.json: line 1: not valid JSON: EOF while parsing an object at line 1 column 1
        rules/root-login.json: line 2: not valid YAML: while parsing a node, did not find expected node content
        rules/root-login.json: expected an event pattern, a rule or a template, an object
        rules/root-login.json (rule "root-login"): the pattern asks for nothing: it would match every record
        rules/root-login.json: source (rule "root-login"): the source ["my.app"] is not one of AWS's services ("aws.iam"): no CloudTrail rule
        rules/root-login.json: detail-type (rule "root-login"): the detail type ["EC2 Instance State-change Notification"] does not come from CloudTrail; known are AWS API Call via CloudTrail, AWS Console Sign In via CloudTrail, AWS Service Event via CloudTrail, AWS Console Action via CloudTrail, AWS Insight via CloudTrail
        rules/root-login.json: resources (rule "root-login"): "resources" is a field of the record; put it into "detail"
        rules/root-login.json: eventName (rule "root-login"): "eventName" is a field of the record; put it into "detail"
        rules/root-login.json: detail.a (rule "root-login"): expected a list of conditions, or an object of fields
        rules/root-login.json: detail.c (rule "root-login"): the list of conditions is empty
        rules/root-login.json: detail.d (rule "root-login"): the object is empty
        rules/root-login.json: detail.e[0] (rule "root-login"): EventBridge has no condition "regex"; known are prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists
        rules/root-login.json: detail.e[1] (rule "root-login"): a list within the list of conditions
        rules/root-login.json: detail.f[0] (rule "root-login"): a condition has exactly one key
        rules/root-login.json: source (rule "root-login"): source and detail.eventSource exclude each other: nothing would ever match
        rules/root-login.json: account (rule "root-login"): detail asks for recipientAccountId, too; say it in one place
        rules/root-login.json: $or (rule "root-login"): $or takes a list of at least two patterns
        rules/root-login.json (rule "nightly"): the rule has no event pattern: a schedule detects nothing; leave it out of the file
        rules/root-login.json: Rules[0].EventPattern (rule "a"): not valid JSON: EOF while parsing an object at line 1 column 1
        rules/root-login.json: Rules[1] (rule "b"): the rule has no event pattern: a schedule detects nothing; leave it out of the file
        rules/root-login.json: Resources: the template has no AWS::Events::Rule
        rules/root-login.json: Resources.R.Properties.EventPattern.detail.a[0] (rule "R"): the template's function Ref is not computed here; write the value out
        rules/root-login.json: Resources.R.Properties.EventPattern.detail.c (rule "R"): the template's function Fn::GetAtt is not computed here; write the value out
        "#);
    }
}
