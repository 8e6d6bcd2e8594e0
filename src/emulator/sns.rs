//! SNS: `winterbaume` keeps topics and subscriptions; publishing, with SNS's limits, and the deliveries to SQS are here.
//!
//! Filter policies are not applied, and no other protocol than `sqs` is delivered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;
use winterbaume_core::{MockRequest, MockResponse, MockService, StatefulService};
use winterbaume_sns::SnsService;

use super::{ACCOUNT, Aws, Published, wire};
use crate::env::lock;

const LIMIT: usize = 262_144;
const DEDUPLICATION: Duration = Duration::from_mins(5);

pub(super) struct Topics {
    region: String,
    service: SnsService,
    /// By topic and `MessageDeduplicationId`: the message id that was given for it, and when.
    deduplicated: Mutex<HashMap<(String, String), (String, Instant)>>,
}

/// Why a message is refused, with SNS's code.
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn invalid(message: &str) -> Self {
        Self { code: "InvalidParameter", message: format!("Invalid parameter: {message}") }
    }
}

impl Topics {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), service: SnsService::new(), deduplicated: Mutex::new(HashMap::new()) }
    }

    pub(super) async fn answer(&self, aws: &Aws, called: &wire::Called, request: MockRequest) -> MockResponse {
        let form = wire::parse_form(&request.body);
        match called.operation.as_str() {
            "Publish" => self.publish(aws, &form).await,
            "PublishBatch" => self.publish_batch(aws, &form).await,
            "Subscribe" => self.subscribe(&form, request).await,
            "ListSubscriptionsByTopic" => self.subscriptions(&form).await,
            _ => self.serve(request).await,
        }
    }

    /// The ARNs of all topics.
    pub(super) async fn topics(&self) -> HashSet<String> {
        self.service.snapshot(ACCOUNT, &self.region).await.topics.into_keys().collect()
    }

    /// Publishes on behalf of another service; a topic that does not exist drops it, as in AWS.
    pub(super) async fn publish_text(&self, aws: &Aws, topic: &str, subject: &str, message: &str) {
        let form = [("Subject", subject), ("Message", message)];
        let form: HashMap<_, _> = form.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if let Ok(message) = parse_message(topic, &form, "") {
            self.accept(aws, message).await;
        }
    }

    async fn serve(&self, mut request: MockRequest) -> MockResponse {
        request.uri = wire::service_uri("sns", &self.region, "/");
        request.headers.remove(http::header::AUTHORIZATION);
        self.service.handle(request).await
    }

    /// `winterbaume` forgets the attributes that come with a subscription: they are set one by one.
    async fn subscribe(&self, form: &HashMap<String, String>, request: MockRequest) -> MockResponse {
        let answer = self.serve(request).await;
        let Some(arn) = wire::text(&String::from_utf8_lossy(&answer.body), "SubscriptionArn") else { return answer };
        for index in 1.. {
            let field = |name| form.get(&format!("Attributes.entry.{index}.{name}")).map(String::as_str);
            let (Some(name), Some(value)) = (field("key"), field("value")) else { break };
            let parameters = [("SubscriptionArn", arn.as_str()), ("AttributeName", name), ("AttributeValue", value)];
            if let Ok(request) = wire::query_request("SetSubscriptionAttributes", &parameters) {
                self.serve(request).await;
            }
        }
        answer
    }

    /// Who must confirm never does here: the word stands in the ARN's place.
    async fn subscriptions(&self, form: &HashMap<String, String>) -> MockResponse {
        let topic = form.get("TopicArn").cloned().unwrap_or_default();
        if !self.topics().await.contains(&topic) {
            return wire::error("sns", 404, "NotFound", "Topic does not exist");
        }
        let mut members = String::new();
        for (arn, one) in self.service.snapshot(ACCOUNT, &self.region).await.subscriptions {
            if one.topic_arn != topic {
                continue;
            }
            let confirms = matches!(one.protocol.as_str(), "email" | "email-json" | "http" | "https");
            let arn = if confirms { "PendingConfirmation" } else { &arn };
            let _infallible = write!(
                members,
                "<member><TopicArn>{topic}</TopicArn><Protocol>{}</Protocol><SubscriptionArn>{arn}</SubscriptionArn>\
                 <Owner>{ACCOUNT}</Owner><Endpoint>{}</Endpoint></member>",
                wire::escape_xml(&one.protocol),
                wire::escape_xml(&one.endpoint)
            );
        }
        answer("ListSubscriptionsByTopic", &format!("<Subscriptions>{members}</Subscriptions>"))
    }

    async fn publish(&self, aws: &Aws, form: &HashMap<String, String>) -> MockResponse {
        let topic = form.get("TopicArn").or_else(|| form.get("TargetArn")).cloned().unwrap_or_default();
        if !self.topics().await.contains(&topic) {
            return wire::error("sns", 404, "NotFound", "Topic does not exist");
        }
        match parse_message(&topic, form, "") {
            Ok(message) => {
                let id = self.accept(aws, message).await;
                answer("Publish", &format!("<MessageId>{id}</MessageId>"))
            }
            Err(refusal) => wire::error("sns", 400, refusal.code, &refusal.message),
        }
    }

    async fn publish_batch(&self, aws: &Aws, form: &HashMap<String, String>) -> MockResponse {
        let topic = form.get("TopicArn").cloned().unwrap_or_default();
        if !self.topics().await.contains(&topic) {
            return wire::error("sns", 404, "NotFound", "Topic does not exist");
        }
        let entries: Vec<(String, String)> = (1..)
            .map(|index| format!("PublishBatchRequestEntries.member.{index}."))
            .map_while(|prefix| Some((form.get(&format!("{prefix}Id"))?.clone(), prefix)))
            .collect();
        let ids: HashSet<&str> = entries.iter().map(|(id, _)| id.as_str()).collect();
        let refused = if entries.is_empty() {
            Some(("EmptyBatchRequest", "The batch request doesn't contain any entries."))
        } else if entries.len() > 10 {
            Some(("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible."))
        } else if ids.len() != entries.len() {
            Some(("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id."))
        } else if entries.iter().map(|(_, prefix)| size(form, prefix)).sum::<usize>() > LIMIT {
            Some(("BatchRequestTooLong", "The length of all the batch messages put together is more than the limit."))
        } else {
            None
        };
        if let Some((code, message)) = refused {
            return wire::error("sns", 400, code, message);
        }
        let (mut successful, mut failed) = (String::new(), String::new());
        for (entry_id, prefix) in &entries {
            let entry_id = wire::escape_xml(entry_id);
            match parse_message(&topic, form, prefix) {
                Ok(message) => {
                    let id = self.accept(aws, message).await;
                    let _infallible =
                        write!(successful, "<member><Id>{entry_id}</Id><MessageId>{id}</MessageId></member>");
                }
                Err(Refusal { code, message }) => {
                    let _infallible = write!(
                        failed,
                        "<member><Id>{entry_id}</Id><Code>{code}</Code><Message>{}</Message>\
                         <SenderFault>true</SenderFault></member>",
                        wire::escape_xml(&message)
                    );
                }
            }
        }
        answer("PublishBatch", &format!("<Successful>{successful}</Successful><Failed>{failed}</Failed>"))
    }

    /// Takes a message in: deduplicates it on a FIFO topic, delivers it, and gives its id.
    async fn accept(&self, aws: &Aws, message: Published) -> String {
        if wire::is_fifo(&message.topic_arn)
            && let Some(deduplication_id) = &message.deduplication_id
        {
            let mut deduplicated = lock(&self.deduplicated);
            deduplicated.retain(|_, (_, at)| at.elapsed() < DEDUPLICATION);
            let key = (message.topic_arn.clone(), deduplication_id.clone());
            if let Some((id, _)) = deduplicated.get(&key) {
                return id.clone();
            }
            deduplicated.insert(key, (message.message_id.clone(), Instant::now()));
        }
        let mut subscriptions = self.service.snapshot(ACCOUNT, &self.region).await.subscriptions;
        subscriptions.retain(|_, it| it.topic_arn == message.topic_arn && it.protocol == "sqs");
        for (arn, subscription) in subscriptions {
            let raw = subscription.attributes.get("RawMessageDelivery").is_some_and(|raw| raw == "true");
            if raw {
                aws.send(&subscription.endpoint, &message.message, message.attributes.clone().into_iter().collect());
            } else {
                let envelope = self.envelope(&message, &arn).to_string();
                aws.send(&subscription.endpoint, &envelope, HashMap::new());
            }
        }
        let id = message.message_id.clone();
        aws.publish(message);
        id
    }

    /// <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>, "notification JSON format".
    fn envelope(&self, message: &Published, subscription_arn: &str) -> Value {
        let host = format!("https://sns.{}.amazonaws.com", self.region);
        let mut signature = [0; 256];
        fastrand::fill(&mut signature);
        let mut envelope = json!({
            "Type": "Notification",
            "MessageId": message.message_id,
            "TopicArn": message.topic_arn,
            "Message": message.message,
            "Timestamp": wire::timestamp(message.at),
            "SignatureVersion": "1",
            "Signature": base64::engine::general_purpose::STANDARD.encode(signature),
            "SigningCertURL": format!("{host}/SimpleNotificationService-0000000000000000000000example.pem"),
            "UnsubscribeURL": format!("{host}/?Action=Unsubscribe&SubscriptionArn={subscription_arn}"),
        });
        if let Some(subject) = &message.subject {
            wire::set(&mut envelope, "Subject", subject.as_str());
        }
        if !message.attributes.is_empty() {
            let attributes: Map<String, Value> = message
                .attributes
                .iter()
                .map(|(name, (kind, value))| (name.clone(), json!({ "Type": kind, "Value": value })))
                .collect();
            wire::set(&mut envelope, "MessageAttributes", attributes);
        }
        envelope
    }
}

fn answer(operation: &str, result: &str) -> MockResponse {
    MockResponse::xml(
        200,
        format!(
            "<{operation}Response xmlns=\"https://sns.amazonaws.com/doc/2010-03-31/\"><{operation}Result>{result}\
             </{operation}Result><ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></{operation}Response>",
            wire::uuid()
        ),
    )
}

/// Message and attributes in bytes, as SNS counts them.
fn size(form: &HashMap<String, String>, prefix: &str) -> usize {
    let attributes = attributes(form, prefix);
    let attributes = attributes.iter().map(|(name, (kind, value))| name.len() + kind.len() + value.len());
    form.get(&format!("{prefix}Message")).map_or(0, String::len) + attributes.sum::<usize>()
}

fn attributes(form: &HashMap<String, String>, prefix: &str) -> BTreeMap<String, (String, String)> {
    (1..)
        .map(|index| format!("{prefix}MessageAttributes.entry.{index}."))
        .map_while(|prefix| {
            let field = |name| form.get(&format!("{prefix}{name}")).cloned();
            let value = field("Value.StringValue").or_else(|| field("Value.BinaryValue")).unwrap_or_default();
            Some((field("Name")?, (field("Value.DataType").unwrap_or_default(), value)))
        })
        .collect()
}

/// Reads a message from a form and holds it against SNS's rules.
fn parse_message(topic: &str, form: &HashMap<String, String>, prefix: &str) -> Result<Published, Refusal> {
    let field = |name: &str| form.get(&format!("{prefix}{name}")).cloned();
    let message = field("Message").filter(|message| !message.is_empty()).ok_or(Refusal::invalid("Empty message"))?;
    if size(form, prefix) > LIMIT {
        return Err(Refusal::invalid("Message too long"));
    }
    let subject = field("Subject");
    if let Some(subject) = &subject
        && (subject.is_empty() || subject.len() > 100 || subject.chars().any(|c| !c.is_ascii() || c.is_ascii_control()))
    {
        return Err(Refusal::invalid("Subject"));
    }
    let texts = match field("MessageStructure").as_deref() {
        None | Some("") => BTreeMap::new(),
        Some("json") => {
            let unreadable = || Refusal::invalid("Message Structure - JSON message body failed to parse");
            let texts: Map<String, Value> = serde_json::from_str(&message).map_err(|_| unreadable())?;
            texts.into_iter().filter_map(|(name, text)| Some((name, text.as_str()?.to_owned()))).collect()
        }
        Some(_) => return Err(Refusal::invalid("MessageStructure")),
    };
    if field("MessageStructure").is_some() && !texts.contains_key("default") {
        return Err(Refusal::invalid("Message Structure - No default entry in JSON message body"));
    }
    let attributes = attributes(form, prefix);
    if attributes.iter().any(|(name, (kind, value))| name.is_empty() || kind.is_empty() || value.is_empty()) {
        return Err(Refusal { code: "InvalidParameterValue", message: "a message attribute is empty".to_owned() });
    }
    let (group_id, deduplication_id) = (field("MessageGroupId"), field("MessageDeduplicationId"));
    if wire::is_fifo(topic) && group_id.is_none() {
        return Err(Refusal::invalid("The MessageGroupId parameter is required for FIFO topics"));
    }
    if wire::is_fifo(topic) && deduplication_id.is_none() {
        let message = "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId \
                       provided explicitly";
        return Err(Refusal::invalid(message));
    }
    Ok(Published {
        topic_arn: topic.to_owned(),
        message_id: wire::uuid(),
        subject,
        message: texts.get("default").cloned().unwrap_or(message),
        texts,
        attributes,
        group_id,
        deduplication_id,
        at: OffsetDateTime::now_utc(),
    })
}
