//! The dead-letter queue, for the command `dlq`: where it is, and what a person may do with its messages.
//!
//! Unlike the ports, these calls are repeated by the SDK: nothing of ours does it for a tool.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, ChangeMessageVisibilityBatchResultEntry, DeleteMessageBatchRequestEntry,
    DeleteMessageBatchResultEntry, Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
};

use super::errors::{self, Operation};
use super::sqs::{ATTRIBUTES, DELETE, RECEIVE, VISIBILITY, parsed, received, results, whole_seconds};
use super::{Settings, arn_region, queue_region, tool_session};
use crate::ports::{ErrorClass, Fault, PortError, Receipt, ReceivedMessage};

/// SQS takes at most this many entries in one call.
pub const BATCH: usize = 10;

const URL: Operation = Operation { name: "sqs:GetQueueUrl", action: "sqs:GetQueueUrl", ..RECEIVE };
const VISIBILITY_BATCH: Operation = Operation { name: "sqs:ChangeMessageVisibilityBatch", ..VISIBILITY };
const SEND: Operation = Operation {
    name: "sqs:SendMessage",
    action: "sqs:SendMessage",
    kms: "kms:GenerateDataKey",
    invalid: ErrorClass::Permanent,
    ..RECEIVE
};

const SYSTEM_ATTRIBUTES: [MessageSystemAttributeName; 4] = [
    MessageSystemAttributeName::SentTimestamp,
    MessageSystemAttributeName::ApproximateReceiveCount,
    MessageSystemAttributeName::MessageGroupId,
    MessageSystemAttributeName::DeadLetterQueueSourceArn,
];

/// Why the dead-letter queue of a queue is not known.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(
        "queue {queue} has no redrive policy, and so no dead-letter queue: give it one, or name a queue with --queue-url"
    )]
    NoPolicy { queue: String },
    #[error("the redrive policy of queue {queue} names no queue of SQS: mend it, or name a queue with --queue-url")]
    BadPolicy { queue: String },
    #[error("cannot look up the dead-letter queue of {queue}: {error}")]
    Call { queue: String, error: PortError },
}

/// A message of the dead-letter queue, with what must go along when it is sent again.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub message: ReceivedMessage,
    /// The name of the queue that it comes from, where SQS tells it.
    pub source: Option<String>,
    attributes: HashMap<String, MessageAttributeValue>,
    group_id: Option<String>,
}

#[cfg(test)]
impl DeadLetter {
    /// A message with this id and receipt, and little else.
    pub(crate) fn of(id: &str, receipt: &str) -> Self {
        let message = ReceivedMessage {
            message_id: id.to_owned(),
            receipt: Receipt(receipt.to_owned()),
            body: "{ }".to_owned(),
            receive_count: 1,
            sent_at: None,
        };
        Self { message, source: None, attributes: HashMap::new(), group_id: None }
    }
}

/// What a queue says of itself. Counts are approximate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub visible: u64,
    /// In flight or delayed: nobody else can receive them now.
    pub invisible: u64,
    /// After how many receives it moves a message on, if it has a dead-letter queue itself.
    pub max_receive_count: Option<u32>,
}

/// A dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    client: Client,
    url: String,
}

/// The queue whose messages end on the dead-letter queue.
#[derive(Clone, Debug)]
pub struct SourceQueue {
    client: Client,
    url: String,
}

impl DeadLetters {
    /// The dead-letter queue that the redrive policy of this queue names, in the account and region of its ARN.
    ///
    /// # Errors
    ///
    /// There is none, or a call failed.
    pub async fn of(queue_url: &str) -> Result<Self, FindError> {
        let queue = || queue_url.to_owned();
        let failed = |error| FindError::Call { queue: queue(), error };
        let client = client(queue_url, queue_region(queue_url)).await;
        let request = client.get_queue_attributes().queue_url(queue_url);
        let sent = Box::pin(request.attribute_names(QueueAttributeName::RedrivePolicy).send()).await;
        let answer = sent.map_err(|error| failed(errors::classify(error, &ATTRIBUTES, queue_url)))?;
        let policy = answer.attributes().and_then(|all| all.get(&QueueAttributeName::RedrivePolicy));
        let policy =
            policy.filter(|policy| !policy.is_empty()).ok_or_else(|| FindError::NoPolicy { queue: queue() })?;
        let target = target(policy).ok_or_else(|| FindError::BadPolicy { queue: queue() })?;

        let client = self::client(queue_url, arn_region(&target.arn)).await;
        let request = client.get_queue_url().queue_name(&target.name).queue_owner_aws_account_id(&target.account);
        let sent = Box::pin(request.send()).await;
        let answer = sent.map_err(|error| failed(errors::classify(error, &URL, &target.arn)))?;
        let url = answer.queue_url.ok_or_else(|| {
            failed(errors::unavailable(&URL, &format!("the answer for {} has no QueueUrl", target.arn), None))
        })?;
        Ok(Self { client, url })
    }

    /// The queue at this URL, in the region that it names.
    pub async fn at(url: &str) -> Self {
        Self { client: client(url, queue_region(url)).await, url: url.to_owned() }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub fn name(&self) -> &str {
        queue_name(&self.url)
    }

    /// How many messages it holds.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn depth(&self) -> Result<Depth, PortError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::RedrivePolicy,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let sent = Box::pin(request.set_attribute_names(Some(names.to_vec())).send()).await;
        let answer = sent.map_err(|error| errors::classify(error, &ATTRIBUTES, &self.url))?;
        let text = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        let count = |name| parsed::<u64>(text(name)).unwrap_or(0);
        let in_flight = count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible);
        let delayed = count(QueueAttributeName::ApproximateNumberOfMessagesDelayed);
        Ok(Depth {
            visible: count(QueueAttributeName::ApproximateNumberOfMessages),
            invisible: in_flight.saturating_add(delayed),
            max_receive_count: text(QueueAttributeName::RedrivePolicy).and_then(super::sqs::max_receive_count),
        })
    }

    /// Waits up to `wait` for up to `max` (1 to 10) messages, invisible to others for `visibility` from now on. Not
    /// cancel-safe, as [`crate::ports::MessageQueue::receive`].
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<DeadLetter>, PortError> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max.clamp(1, BATCH)).unwrap_or(1))
            .wait_time_seconds(whole_seconds(wait).min(5))
            .visibility_timeout(whole_seconds(visibility))
            .message_attribute_names("All")
            .set_message_system_attribute_names(Some(SYSTEM_ATTRIBUTES.to_vec()));
        let answer = Box::pin(request.send()).await.map_err(|error| errors::classify(error, &RECEIVE, &self.url))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(dead_letter).collect())
    }

    /// Makes up to ten messages invisible for `visibility` from now on; zero gives them back. An inner error is that
    /// message's.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn change_visibility(
        &self,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> Result<Vec<Result<(), PortError>>, PortError> {
        let mut request = self.client.change_message_visibility_batch().queue_url(&self.url);
        for (position, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(position.to_string())
                .receipt_handle(&receipt.0)
                .visibility_timeout(whole_seconds(visibility));
            request = request.entries(entry.build().map_err(|error| unbuilt(&VISIBILITY_BATCH, &error))?);
        }
        let sent = Box::pin(request.send()).await;
        let answer = sent.map_err(|error| errors::classify(error, &VISIBILITY_BATCH, &self.url))?;
        let done = answer.successful().iter().map(ChangeMessageVisibilityBatchResultEntry::id);
        Ok(results(&VISIBILITY_BATCH, &self.url, receipts.len(), done, answer.failed()))
    }

    /// Deletes up to ten messages for good. An inner error is that message's.
    ///
    /// # Errors
    ///
    /// The call failed; what was deleted is not known.
    pub async fn delete(&self, receipts: &[Receipt]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let mut request = self.client.delete_message_batch().queue_url(&self.url);
        for (position, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(position.to_string()).receipt_handle(&receipt.0);
            request = request.entries(entry.build().map_err(|error| unbuilt(&DELETE, &error))?);
        }
        let sent = Box::pin(request.send()).await;
        let answer = sent.map_err(|error| errors::classify(error, &DELETE, &self.url))?;
        let done = answer.successful().iter().map(DeleteMessageBatchResultEntry::id);
        Ok(results(&DELETE, &self.url, receipts.len(), done, answer.failed()))
    }
}

impl SourceQueue {
    /// The queue at this URL, in the region that it names.
    pub async fn at(url: &str) -> Self {
        Self { client: client(url, queue_region(url)).await, url: url.to_owned() }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        queue_name(&self.url)
    }

    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.name().strip_suffix(".fifo").is_some()
    }

    /// Sends a message again, with its attributes and its group. `Ok`: SQS has it, under this id, which it keeps should it
    /// come to the dead-letter queue again.
    ///
    /// A FIFO queue drops a message whose deduplication id it saw in the last five minutes, and says that all is well:
    /// with the id that the message had at first, one that failed fast would be lost. So its id is made of the id that
    /// it has on the dead-letter queue: repeating a lost answer still makes no second one.
    ///
    /// # Errors
    ///
    /// The call failed, or its answer was lost.
    pub async fn send(&self, letter: &DeadLetter) -> Result<String, PortError> {
        let attributes = Some(letter.attributes.clone()).filter(|all| !all.is_empty());
        let request = self.client.send_message().queue_url(&self.url).message_body(&letter.message.body);
        let mut request = request.set_message_attributes(attributes).set_message_group_id(letter.group_id.clone());
        if self.is_fifo() {
            let group = letter.group_id.as_deref().unwrap_or("trailhound");
            request = request
                .message_group_id(group)
                .message_deduplication_id(format!("redrive-{}", letter.message.message_id));
        }
        let sent = Box::pin(request.send()).await;
        let answer = sent.map_err(|error| errors::classify(error, &SEND, &self.url))?;
        answer.message_id.ok_or_else(|| errors::unavailable(&SEND, "the answer has no MessageId", None))
    }
}

async fn client(queue_url: &str, region: Option<&str>) -> Client {
    let settings = Settings { queue_url: queue_url.to_owned(), ..Settings::default() };
    Client::new(&Box::pin(tool_session(&settings, region)).await)
}

fn queue_name(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn unbuilt(operation: &Operation, error: &impl std::fmt::Display) -> PortError {
    errors::failure(operation, ErrorClass::Permanent, Fault::Invalid, &error.to_string())
}

/// The queue that a redrive policy names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    arn: String,
    account: String,
    name: String,
}

/// Format: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html>.
fn target(policy: &str) -> Option<Target> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let arn = policy.get("deadLetterTargetArn")?.as_str()?;
    let mut parts = arn.splitn(6, ':');
    let (prefix, _partition, service, _region) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (account, name) = (parts.next()?, parts.next()?);
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let is_account = !account.is_empty() && account.bytes().all(|b| b.is_ascii_digit());
    (prefix == "arn" && service == "sqs" && is_name && is_account).then(|| Target {
        arn: arn.to_owned(),
        account: account.to_owned(),
        name: name.to_owned(),
    })
}

fn dead_letter(message: Message) -> Option<DeadLetter> {
    let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name)).cloned();
    let source = attribute(MessageSystemAttributeName::DeadLetterQueueSourceArn);
    Some(DeadLetter {
        group_id: attribute(MessageSystemAttributeName::MessageGroupId),
        source: source.and_then(|arn| arn.rsplit(':').next().map(str::to_owned)),
        attributes: message.message_attributes.clone().unwrap_or_default(),
        message: received(message)?,
    })
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::Blob;
    use serde_json::{Value, json};

    use super::*;
    use crate::aws::tests::{ok, serve};
    use crate::aws::{CALL_TIMEOUT, local};

    fn letter(group: Option<&str>) -> DeadLetter {
        let text = MessageAttributeValue::builder().data_type("String.kind").string_value("log").build().unwrap();
        let bytes = MessageAttributeValue::builder().data_type("Binary").binary_value(Blob::new("\u{1}")).build();
        DeadLetter {
            attributes: HashMap::from([("kind".to_owned(), text), ("raw".to_owned(), bytes.unwrap())]),
            group_id: group.map(str::to_owned),
            ..DeadLetter::of("m-1", "AQEB0")
        }
    }

    async fn sent(queue: &str, letter: &DeadLetter) -> Value {
        let (endpoint, mut requests) = serve(vec![ok(r#"{"MessageId": "m-2"}"#)]).await;
        let client = Client::new(&local(&endpoint, "eu-west-1", CALL_TIMEOUT));
        SourceQueue { client, url: format!("{endpoint}/111122223333/{queue}") }.send(letter).await.unwrap();
        let request = requests.recv().await.unwrap();
        let mut body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
        body.as_object_mut().unwrap().remove("QueueUrl");
        body
    }

    #[tokio::test]
    async fn what_is_sent_again_is_what_was_sent() {
        let attributes = json!({
            "kind": { "DataType": "String.kind", "StringValue": "log" },
            "raw": { "DataType": "Binary", "BinaryValue": "AQ==" },
        });
        let plain = json!({ "MessageBody": "{ }", "MessageAttributes": attributes });
        assert_eq!(sent("trail", &letter(None)).await, plain);
        let fair = json!({ "MessageBody": "{ }", "MessageAttributes": attributes, "MessageGroupId": "g" });
        assert_eq!(sent("trail", &letter(Some("g"))).await, fair);
    }

    /// The queue would drop a copy with the first id, and the message with it.
    #[tokio::test]
    async fn a_fifo_queue_gets_the_group_and_an_id_of_its_own() {
        let body = sent("trail.fifo", &letter(Some("g"))).await;
        assert_eq!((&body["MessageGroupId"], &body["MessageDeduplicationId"]), (&json!("g"), &json!("redrive-m-1")));
    }

    #[test]
    fn the_redrive_policy_names_a_queue() {
        let arn = "arn:aws-cn:sqs:cn-north-1:111122223333:trail-dead_letters.fifo";
        let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 10 }).to_string();
        let expected = Target {
            arn: arn.to_owned(),
            account: "111122223333".to_owned(),
            name: "trail-dead_letters.fifo".to_owned(),
        };
        assert_eq!(target(&policy), Some(expected));
        for wrong in ["", "{}", "[]", r#"{"deadLetterTargetArn": 7}"#] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
        for wrong in ["arn:aws:sns:eu-west-1:1:t", "arn:aws:sqs:eu-west-1:1:", "arn:aws:sqs:eu-west-1:1:a:b", "trail"] {
            assert_eq!(target(&json!({ "deadLetterTargetArn": wrong }).to_string()), None, "{wrong}");
        }
    }
}
