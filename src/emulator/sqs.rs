//! SQS: `winterbaume` keeps queues, receive counts and redrive; the operations around it are here, because its own
//! handlers poll every 100 ms, lose received messages from the counts, and fail a whole batch for one entry.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use winterbaume_core::MockResponse;
use winterbaume_sqs::SqsState;
use winterbaume_sqs::state::SqsError;
use winterbaume_sqs::types::{Message, MessageAttribute};

use super::resources::QueueCounts;
use super::{ACCOUNT, wire};
use crate::env::lock;

const BODY_LIMIT: usize = 1024 * 1024;
const VISIBILITY_LIMIT: u64 = 12 * 60 * 60;

pub(super) struct Queues {
    region: String,
    address: SocketAddr,
    state: Mutex<SqsState>,
    /// How queues are encrypted, by name, which `winterbaume` forgets.
    encryption: Mutex<HashMap<String, HashMap<String, String>>>,
    /// Wakes the long polls: a message came, or came back.
    changed: Notify,
}

/// An error answer: HTTP status is 400; the code of the JSON protocol and that of the older query protocol differ.
struct Refusal {
    code: &'static str,
    query_code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, query_code: code, message: message.into() }
    }

    fn no_queue() -> Self {
        Self {
            code: "QueueDoesNotExist",
            query_code: "AWS.SimpleQueueService.NonExistentQueue",
            message: "The specified queue does not exist.".to_owned(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "InvalidParameterValueException", query_code: "InvalidParameterValue", message: message.into() }
    }

    fn answer(&self) -> MockResponse {
        let mut answer = wire::error("sqs", 400, self.code, &self.message);
        if let Ok(value) = format!("{};Sender", self.query_code).parse() {
            answer.headers.insert("x-amzn-query-error", value);
        }
        answer
    }

    /// The entry of a batch's `Failed` list.
    fn entry(&self, id: &str) -> Value {
        json!({ "Id": id, "SenderFault": true, "Code": self.query_code, "Message": self.message })
    }
}

impl From<SqsError> for Refusal {
    fn from(error: SqsError) -> Self {
        let message = error.to_string();
        match error {
            SqsError::NonExistentQueue => Self::no_queue(),
            SqsError::QueueAlreadyExists => Self::new("QueueNameExists", message),
            SqsError::InvalidReceiptHandle { .. } => Self::new("ReceiptHandleIsInvalid", message),
            _ => Self::invalid(message),
        }
    }
}

type Answer = Result<Value, Refusal>;

impl Queues {
    pub(super) fn new(region: &str, address: SocketAddr) -> Self {
        Self {
            region: region.to_owned(),
            address,
            state: Mutex::new(SqsState::default()),
            encryption: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) async fn answer(&self, operation: &str, body: &[u8]) -> MockResponse {
        let Ok(input) = serde_json::from_slice::<Value>(body) else {
            return Refusal::new("InvalidInput", "the body is not JSON").answer();
        };
        let answered = match operation {
            "CreateQueue" => self.create(&input),
            "GetQueueUrl" => self.url(&input),
            "ListQueues" => Ok(self.list(&input)),
            "DeleteQueue" => self.remove(&input),
            "PurgeQueue" => self.purge(&input),
            "GetQueueAttributes" => self.attributes(&input),
            "SetQueueAttributes" => self.set_attributes(&input),
            "SendMessage" => self.send_one(&input, &input),
            "SendMessageBatch" => batch(&input, |entry| self.send_one(&input, entry)),
            "ReceiveMessage" => self.receive(&input).await,
            "DeleteMessage" => self.delete(&input, &input),
            "DeleteMessageBatch" => batch(&input, |entry| self.delete(&input, entry)),
            "ChangeMessageVisibility" => self.change_visibility(&input, &input),
            "ChangeMessageVisibilityBatch" => batch(&input, |entry| self.change_visibility(&input, entry)),
            _ => Err(Refusal::new("InvalidAction", format!("the emulator's SQS does not know {operation}"))),
        };
        match answered {
            Ok(Value::Null) => MockResponse::json(200, "{}"),
            Ok(output) => MockResponse::json(200, output.to_string()),
            Err(refusal) => refusal.answer(),
        }
    }

    /// Sends a message to the queue of this name; attributes are name to data type and value.
    pub(super) fn send(
        &self,
        queue: &str,
        body: &str,
        attributes: HashMap<String, (String, String)>,
    ) -> Result<(), SqsError> {
        let attributes = attributes
            .into_iter()
            .map(|(name, (data_type, value))| {
                (name, MessageAttribute { data_type, string_value: Some(value), binary_value: None })
            })
            .collect();
        // A FIFO queue behind a topic gets a deduplication id of its own for each delivery: the topic deduplicated.
        let id = wire::uuid();
        lock(&self.state).send_message(queue, body, None, attributes, Some("emulator"), Some(&id))?;
        self.changed.notify_waiters();
        Ok(())
    }

    pub(super) fn exists(&self, queue_arn: &str) -> bool {
        lock(&self.state).queues.values().any(|queue| queue.queue.arn == queue_arn)
    }

    pub(super) fn counts(&self, queue: &str) -> Option<QueueCounts> {
        let now = now_ms();
        let state = lock(&self.state);
        let queue = state.queues.get(queue)?;
        let mut counts = QueueCounts::default();
        for message in &queue.messages {
            match (message.visible_at <= now, message.approximate_receive_count) {
                (true, _) => counts.visible += 1,
                (false, 0) => counts.delayed += 1,
                (false, _) => counts.in_flight += 1,
            }
        }
        Some(counts)
    }

    /// Takes every message off the queue, visible or not: its body and how often it was received.
    pub(super) fn take_all(&self, queue: &str) -> Option<Vec<(String, u32)>> {
        let mut state = lock(&self.state);
        let messages = std::mem::take(&mut state.queues.get_mut(queue)?.messages);
        Some(messages.into_iter().map(|message| (message.body, message.approximate_receive_count)).collect())
    }

    /// The bodies of every message on the queue, visible or not.
    pub(super) fn bodies(&self, queue: &str) -> Option<Vec<String>> {
        let state = lock(&self.state);
        Some(state.queues.get(queue)?.messages.iter().map(|message| message.body.clone()).collect())
    }

    fn create(&self, input: &Value) -> Answer {
        let name = string(input, "QueueName")?;
        let url = format!("http://{}/{ACCOUNT}/{name}", self.address);
        let mut state = lock(&self.state);
        let (attributes, tags) = (strings(input.get("Attributes")), strings(input.get("tags")));
        state.create_queue(name, &self.region, ACCOUNT, &attributes, Some(&tags))?;
        if let Some(queue) = state.queues.get_mut(name) {
            queue.queue.url.clone_from(&url);
        }
        self.encrypt(name, &attributes);
        Ok(json!({ "QueueUrl": url }))
    }

    fn url(&self, input: &Value) -> Answer {
        let state = lock(&self.state);
        Ok(json!({ "QueueUrl": state.get_queue_url(string(input, "QueueName")?)? }))
    }

    fn list(&self, input: &Value) -> Value {
        let state = lock(&self.state);
        let prefix = input.get("QueueNamePrefix").and_then(Value::as_str);
        let mut urls: Vec<_> = state.list_queues(prefix).into_iter().map(|queue| queue.url.clone()).collect();
        urls.sort();
        json!({ "QueueUrls": urls })
    }

    fn remove(&self, input: &Value) -> Answer {
        lock(&self.state).delete_queue(queue_name(input)?)?;
        Ok(Value::Null)
    }

    fn purge(&self, input: &Value) -> Answer {
        lock(&self.state).purge_queue(queue_name(input)?)?;
        Ok(Value::Null)
    }

    fn attributes(&self, input: &Value) -> Answer {
        let name = queue_name(input)?;
        let mut attributes = lock(&self.state).get_queue_attributes(name)?;
        let counts = self.counts(name).ok_or_else(Refusal::no_queue)?;
        attributes.insert("ApproximateNumberOfMessages".to_owned(), counts.visible.to_string());
        attributes.insert("ApproximateNumberOfMessagesNotVisible".to_owned(), counts.in_flight.to_string());
        attributes.insert("ApproximateNumberOfMessagesDelayed".to_owned(), counts.delayed.to_string());
        if let Some(encryption) = lock(&self.encryption).get(name) {
            attributes.extend(encryption.clone());
        }
        let wanted = list_of(input.get("AttributeNames"));
        attributes.retain(|name, _| wanted.iter().any(|wanted| *wanted == "All" || wanted == name));
        Ok(if attributes.is_empty() { json!({}) } else { json!({ "Attributes": attributes }) })
    }

    fn set_attributes(&self, input: &Value) -> Answer {
        let (name, attributes) = (queue_name(input)?, strings(input.get("Attributes")));
        lock(&self.state).set_queue_attributes(name, &attributes)?;
        self.encrypt(name, &attributes);
        Ok(Value::Null)
    }

    /// One kind of encryption takes the place of the other.
    fn encrypt(&self, name: &str, attributes: &HashMap<String, String>) {
        let key = attributes.get("KmsMasterKeyId").filter(|key| !key.is_empty());
        let managed = attributes.get("SqsManagedSseEnabled");
        let set = |managed: &str, key: &str| {
            [("SqsManagedSseEnabled", managed), ("KmsMasterKeyId", key)]
                .map(|(name, is)| (name.to_owned(), is.to_owned()))
        };
        let now = match (key, managed) {
            (Some(key), _) => set("false", key),
            (None, Some(managed)) => set(managed, ""),
            (None, None) => return,
        };
        lock(&self.encryption).insert(name.to_owned(), now.into_iter().filter(|(_, is)| !is.is_empty()).collect());
    }

    fn send_one(&self, request: &Value, entry: &Value) -> Answer {
        let body = string(entry, "MessageBody")?;
        if body.len() > BODY_LIMIT {
            return Err(Refusal::invalid(
                "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
            ));
        }
        let delay = entry.get("DelaySeconds").and_then(Value::as_u64).and_then(|delay| u32::try_from(delay).ok());
        let attributes = entry.get("MessageAttributes").and_then(Value::as_object).map(sent_attributes);
        let sent = lock(&self.state).send_message(
            queue_name(request)?,
            body,
            delay,
            attributes.unwrap_or_default(),
            entry.get("MessageGroupId").and_then(Value::as_str),
            entry.get("MessageDeduplicationId").and_then(Value::as_str),
        )?;
        self.changed.notify_waiters();
        Ok(json!({ "MessageId": sent.message_id, "MD5OfMessageBody": sent.body_md5 }))
    }

    async fn receive(&self, input: &Value) -> Answer {
        let queue = queue_name(input)?;
        let max = number(input, "MaxNumberOfMessages", 1..=10)?.unwrap_or(1);
        let visibility = number(input, "VisibilityTimeout", 0..=VISIBILITY_LIMIT)?;
        let wait = match number(input, "WaitTimeSeconds", 0..=20)? {
            Some(wait) => wait,
            None => lock(&self.state).queues.get(queue).map_or(0, |queue| queue.queue.receive_wait_time_seconds.into()),
        };
        let deadline = Instant::now() + Duration::from_secs(wait);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before looking, so that a message sent in between is not missed.
            changed.as_mut().enable();
            let (messages, next) = self.try_receive(queue, max, visibility)?;
            if !messages.is_empty() || Instant::now() >= deadline {
                let messages: Vec<Value> = messages.iter().map(|message| received(message, input)).collect();
                return Ok(if messages.is_empty() { json!({}) } else { json!({ "Messages": messages }) });
            }
            let until = next.map_or(deadline, |next| deadline.min(Instant::now() + next));
            let _woken_or_not = tokio::time::timeout_at(until, changed).await;
        }
    }

    /// What can be received now, and how long until the next message becomes visible.
    fn try_receive(
        &self,
        queue: &str,
        max: u64,
        visibility: Option<u64>,
    ) -> Result<(Vec<Message>, Option<Duration>), Refusal> {
        let mut state = lock(&self.state);
        let visibility = visibility.and_then(|seconds| u32::try_from(seconds).ok());
        let held = |state: &SqsState| state.queues.get(queue).map_or(0, |queue| queue.messages.len());
        let before = held(&state);
        let messages = state.receive_message(queue, usize::try_from(max).unwrap_or(1), visibility)?;
        let redriven = held(&state) < before;
        let now = now_ms();
        let next =
            state.queues.get(queue).and_then(|queue| queue.messages.iter().map(|message| message.visible_at).min());
        drop(state);
        if redriven {
            // Somebody may poll the dead-letter queue.
            self.changed.notify_waiters();
        }
        let next = next.map(|at| Duration::from_millis(u64::try_from(at.saturating_sub(now)).unwrap_or(0).max(1)));
        Ok((messages, next))
    }

    fn delete(&self, request: &Value, entry: &Value) -> Answer {
        let queue = queue_name(request)?;
        let handle = handle(entry)?;
        let mut state = lock(&self.state);
        let messages = &mut state.queues.get_mut(queue).ok_or_else(Refusal::no_queue)?.messages;
        // With a handle of an earlier receive the request succeeds and nothing is deleted.
        messages.retain(|message| message.receipt_handle.as_deref() != Some(handle));
        Ok(Value::Null)
    }

    fn change_visibility(&self, request: &Value, entry: &Value) -> Answer {
        let queue = queue_name(request)?;
        let handle = handle(entry)?;
        let seconds = number(entry, "VisibilityTimeout", 0..=VISIBILITY_LIMIT)?
            .ok_or_else(|| Refusal::new("MissingParameter", "VisibilityTimeout is missing"))?;
        let now = now_ms();
        let mut state = lock(&self.state);
        let queue = state.queues.get_mut(queue).ok_or_else(Refusal::no_queue)?;
        let message = queue.messages.iter_mut().find(|message| message.receipt_handle.as_deref() == Some(handle));
        let Some(message) = message else {
            return Err(Refusal::invalid(format!(
                "Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not \
                 available for visibility timeout change."
            )));
        };
        if message.visible_at <= now {
            return Err(Refusal {
                code: "MessageNotInflight",
                query_code: "AWS.SimpleQueueService.MessageNotInflight",
                message: "The specified message isn't in flight.".to_owned(),
            });
        }
        message.visible_at = now.saturating_add(i64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        drop(state);
        self.changed.notify_waiters();
        Ok(Value::Null)
    }
}

/// Runs an operation on each entry of a batch: a failed entry fails alone.
fn batch(input: &Value, run: impl Fn(&Value) -> Answer) -> Answer {
    queue_name(input)?;
    let entries = input.get("Entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if entries.is_empty() {
        return Err(Refusal {
            code: "EmptyBatchRequest",
            query_code: "AWS.SimpleQueueService.EmptyBatchRequest",
            message: "There should be at least one entry in the request.".to_owned(),
        });
    }
    if entries.len() > 10 {
        return Err(Refusal {
            code: "TooManyEntriesInBatchRequest",
            query_code: "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            message: format!("Maximum number of entries per request are 10. You have sent {}.", entries.len()),
        });
    }
    let ids: Vec<&str> = entries.iter().filter_map(|entry| entry.get("Id").and_then(Value::as_str)).collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    if distinct.len() != entries.len() {
        return Err(Refusal {
            code: "BatchEntryIdsNotDistinct",
            query_code: "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            message: "Two or more batch entries in the request have the same Id.".to_owned(),
        });
    }
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, entry) in ids.into_iter().zip(entries) {
        match run(entry) {
            Ok(output) => {
                let mut output = if let Value::Object(output) = output { output } else { Map::new() };
                output.insert("Id".to_owned(), json!(id));
                successful.push(Value::Object(output));
            }
            // The queue is the request's, not the entry's.
            Err(refusal) if refusal.code == "QueueDoesNotExist" => return Err(refusal),
            Err(refusal) => failed.push(refusal.entry(id)),
        }
    }
    Ok(json!({ "Successful": successful, "Failed": failed }))
}

fn received(message: &Message, input: &Value) -> Value {
    let mut wanted = list_of(input.get("AttributeNames"));
    wanted.extend(list_of(input.get("MessageSystemAttributeNames")));
    let attributes: Map<String, Value> = [
        ("SenderId", message.sender_id.clone()),
        ("SentTimestamp", message.sent_timestamp.to_string()),
        ("ApproximateReceiveCount", message.approximate_receive_count.to_string()),
        (
            "ApproximateFirstReceiveTimestamp",
            message.approximate_first_receive_timestamp.unwrap_or_default().to_string(),
        ),
    ]
    .into_iter()
    .filter(|(name, _)| wanted.iter().any(|wanted| wanted == name || *wanted == "All"))
    .map(|(name, value)| (name.to_owned(), json!(value)))
    .collect();
    let mut output = json!({
        "MessageId": message.message_id,
        "ReceiptHandle": message.receipt_handle,
        "MD5OfBody": message.body_md5,
        "Body": message.body,
    });
    if !attributes.is_empty() {
        wire::set(&mut output, "Attributes", attributes);
    }
    if !message.message_attributes.is_empty() && !list_of(input.get("MessageAttributeNames")).is_empty() {
        let attribute = |it: &MessageAttribute| json!({ "DataType": it.data_type, "StringValue": it.string_value });
        let attributes: Map<String, Value> =
            message.message_attributes.iter().map(|(name, it)| (name.clone(), attribute(it))).collect();
        wire::set(&mut output, "MessageAttributes", attributes);
    }
    output
}

fn sent_attributes(attributes: &Map<String, Value>) -> HashMap<String, MessageAttribute> {
    let text = |value: &Value, name| value.get(name).and_then(Value::as_str).map(str::to_owned);
    attributes
        .iter()
        .map(|(name, value)| {
            let data_type = text(value, "DataType").unwrap_or_default();
            let attribute =
                MessageAttribute { data_type, string_value: text(value, "StringValue"), binary_value: None };
            (name.clone(), attribute)
        })
        .collect()
}

fn now_ms() -> i64 {
    let now = OffsetDateTime::now_utc();
    now.unix_timestamp().saturating_mul(1000).saturating_add(now.millisecond().into())
}

/// The receipt handle, if it has the form of one.
fn handle(entry: &Value) -> Result<&str, Refusal> {
    let handle = string(entry, "ReceiptHandle")?;
    if handle.len() == 144 && handle.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Ok(handle);
    }
    Err(SqsError::InvalidReceiptHandle { receipt_handle: handle.to_owned() }.into())
}

fn queue_name(input: &Value) -> Result<&str, Refusal> {
    Ok(string(input, "QueueUrl")?.rsplit('/').next().unwrap_or_default())
}

fn string<'a>(input: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    match input.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(Refusal::new("MissingParameter", format!("The request must contain the parameter {name}."))),
    }
}

fn number(input: &Value, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
    let Some(value) = input.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_u64().filter(|value| range.contains(value)) {
        Some(value) => Ok(Some(value)),
        None => Err(Refusal::invalid(format!(
            "Value {value} for parameter {name} is invalid. Reason: Must be between {} and {}, if provided.",
            range.start(),
            range.end()
        ))),
    }
}

fn strings(value: Option<&Value>) -> HashMap<String, String> {
    let Some(map) = value.and_then(Value::as_object) else { return HashMap::new() };
    map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

fn list_of(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}
