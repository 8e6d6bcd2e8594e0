//! Messages from an SQS queue.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, DeleteMessageBatchRequestEntry, DeleteMessageBatchResultEntry, Message,
    MessageSystemAttributeName, QueueAttributeName,
};
use time::OffsetDateTime;

use super::errors::{self, Operation};
use super::{CALL_TIMEOUT, Meter, timeouts};
use crate::deliver::Delivered;
use crate::ports::{ErrorClass, Fault, MessageQueue, PortError, QueueAttributes, Receipt, ReceivedMessage};

pub(super) const RECEIVE: Operation = Operation {
    name: "sqs:ReceiveMessage",
    action: "sqs:ReceiveMessage",
    kms: "kms:Decrypt",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Config,
};
pub(super) const ATTRIBUTES: Operation =
    Operation { name: "sqs:GetQueueAttributes", action: "sqs:GetQueueAttributes", ..RECEIVE };
pub(super) const VISIBILITY: Operation = Operation {
    name: "sqs:ChangeMessageVisibility",
    action: "sqs:ChangeMessageVisibility",
    invalid: ErrorClass::Permanent,
    ..RECEIVE
};
pub(super) const DELETE: Operation = Operation {
    name: "sqs:DeleteMessageBatch",
    action: "sqs:DeleteMessage",
    invalid: ErrorClass::Permanent,
    ..RECEIVE
};

const SYSTEM_ATTRIBUTES: [MessageSystemAttributeName; 2] =
    [MessageSystemAttributeName::SentTimestamp, MessageSystemAttributeName::ApproximateReceiveCount];

pub(super) struct Sqs {
    client: Client,
    queue_url: String,
    meter: Meter,
}

impl Sqs {
    pub(super) fn new(sdk: &SdkConfig, queue_url: &str, meter: Meter) -> Self {
        Self { client: Client::new(sdk), queue_url: queue_url.to_owned(), meter }
    }

    async fn delete_receipts(&self, receipts: &[&Receipt]) -> Result<Vec<Result<(), PortError>>, PortError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        // The id of an entry is its position.
        let entries =
            receipts.iter().enumerate().map(|(i, receipt)| {
                DeleteMessageBatchRequestEntry::builder().id(i.to_string()).receipt_handle(&receipt.0).build().map_err(
                    |error| errors::failure(&DELETE, ErrorClass::Permanent, Fault::Invalid, &error.to_string()),
                )
            });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        self.meter
            .call(DELETE.name, async {
                let request = self.client.delete_message_batch().queue_url(&self.queue_url);
                let answer = request.set_entries(Some(entries)).send().await;
                let answer = answer.map_err(|error| errors::classify(error, &DELETE, &self.queue_url))?;
                let done = answer.successful().iter().map(DeleteMessageBatchResultEntry::id);
                Ok(results(&DELETE, &self.queue_url, receipts.len(), done, answer.failed()))
            })
            .await
    }
}

#[async_trait]
impl MessageQueue for Sqs {
    async fn attributes(&self) -> Result<QueueAttributes, PortError> {
        let names = [
            QueueAttributeName::VisibilityTimeout,
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
            QueueAttributeName::RedrivePolicy,
        ];
        self.meter
            .call(ATTRIBUTES.name, async {
                let request = self.client.get_queue_attributes().queue_url(&self.queue_url);
                let answer = request.set_attribute_names(Some(names.to_vec())).send().await;
                let answer = answer.map_err(|error| errors::classify(error, &ATTRIBUTES, &self.queue_url))?;
                let text = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
                let count = |name| parsed::<u64>(text(name));
                let visibility = count(QueueAttributeName::VisibilityTimeout)
                    .ok_or_else(|| errors::unavailable(&ATTRIBUTES, "the answer has no VisibilityTimeout", None))?;
                Ok(QueueAttributes {
                    visibility_timeout: Duration::from_secs(visibility),
                    visible: count(QueueAttributeName::ApproximateNumberOfMessages).unwrap_or(0),
                    in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible).unwrap_or(0),
                    delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed).unwrap_or(0),
                    max_receive_count: text(QueueAttributeName::RedrivePolicy).and_then(max_receive_count),
                })
            })
            .await
    }

    async fn receive(
        &self,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<ReceivedMessage>, PortError> {
        let limits = aws_sdk_sqs::Config::builder().timeout_config(timeouts(CALL_TIMEOUT.saturating_add(wait)));
        self.meter
            .call(RECEIVE.name, async {
                let answer = self
                    .client
                    .receive_message()
                    .queue_url(&self.queue_url)
                    .max_number_of_messages(i32::try_from(max.clamp(1, 10)).unwrap_or(1))
                    .wait_time_seconds(i32::try_from(wait.as_secs()).unwrap_or(20).min(20))
                    .visibility_timeout(whole_seconds(visibility))
                    .set_message_system_attribute_names(Some(SYSTEM_ATTRIBUTES.to_vec()))
                    .customize()
                    .config_override(limits)
                    .send()
                    .await
                    .map_err(|error| errors::classify(error, &RECEIVE, &self.queue_url))?;
                Ok(answer.messages.unwrap_or_default().into_iter().filter_map(received).collect())
            })
            .await
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), PortError> {
        self.meter
            .call(VISIBILITY.name, async {
                let request = self.client.change_message_visibility().queue_url(&self.queue_url);
                let answer =
                    request.receipt_handle(&receipt.0).visibility_timeout(whole_seconds(visibility)).send().await;
                answer.map(drop).map_err(|error| errors::classify(error, &VISIBILITY, &self.queue_url))
            })
            .await
    }

    async fn delete(&self, delivered: &[Delivered]) -> Result<Vec<Result<(), PortError>>, PortError> {
        self.delete_receipts(&delivered.iter().map(Delivered::receipt).collect::<Vec<_>>()).await
    }
}

/// The result of each entry of a batch that was answered, where the id of an entry is its position.
pub(super) fn results<'a>(
    operation: &Operation,
    queue_url: &str,
    count: usize,
    done: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), PortError>> {
    let unknown = || Err(errors::unavailable(operation, "the answer does not speak of this message", None));
    let mut results: Vec<_> = std::iter::repeat_with(unknown).take(count).collect();
    for failed in failed {
        if let Some(result) = slot(&mut results, failed.id()) {
            let (code, message) = (failed.code(), failed.message());
            *result = Err(errors::classify_entry(operation, queue_url, code, message, failed.sender_fault()));
        }
    }
    for id in done {
        if let Some(result) = slot(&mut results, id) {
            *result = Ok(());
        }
    }
    results
}

fn slot<'a, T>(results: &'a mut [T], id: &str) -> Option<&'a mut T> {
    results.get_mut(id.parse::<usize>().ok()?)
}

pub(super) fn parsed<T: FromStr>(text: Option<&str>) -> Option<T> {
    text?.trim().parse().ok()
}

/// Rounded up, so that a short time does not become none, which would give the message back.
pub(super) fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(seconds).unwrap_or(i32::MAX).min(43_200)
}

/// `maxReceiveCount` of a redrive policy, a number or a string.
pub(super) fn max_receive_count(policy: &str) -> Option<u32> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    count.as_u64().and_then(|count| u32::try_from(count).ok()).or_else(|| parsed(count.as_str()))
}

/// A message without a receipt handle can be neither deleted nor given back: it comes again by itself.
pub(super) fn received(message: Message) -> Option<ReceivedMessage> {
    let attribute = |name| message.attributes.as_ref().and_then(|all| all.get(&name)).map(String::as_str);
    let sent = parsed::<i128>(attribute(MessageSystemAttributeName::SentTimestamp));
    Some(ReceivedMessage {
        receive_count: parsed(attribute(MessageSystemAttributeName::ApproximateReceiveCount)).unwrap_or(1).max(1),
        sent_at: sent.and_then(|millis| OffsetDateTime::from_unix_timestamp_nanos(millis.checked_mul(1_000_000)?).ok()),
        receipt: Receipt(message.receipt_handle?),
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::aws::local;
    use crate::aws::tests::{meter, ok, serve};

    /// Deletes `receipts` from a queue that answers `answer`; also gives what was sent.
    async fn deleted(receipts: &[&str], answer: Value) -> (Vec<Result<(), PortError>>, Value) {
        let (endpoint, mut requests) = serve(vec![ok(&answer.to_string())]).await;
        let sqs = Sqs::new(&local(&endpoint, "eu-west-1", CALL_TIMEOUT), "trail", meter());
        let receipts: Vec<_> = receipts.iter().map(|handle| Receipt((*handle).to_owned())).collect();
        let results = sqs.delete_receipts(&receipts.iter().collect::<Vec<_>>()).await.unwrap();
        let request = requests.recv().await.unwrap();
        assert!(request.to_lowercase().contains("x-amz-target: amazonsqs.deletemessagebatch"), "{request}");
        (results, serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap())
    }

    #[tokio::test]
    async fn each_entry_of_a_delete_has_its_own_result() {
        let failed = |id: &str, code: &str, sender: bool| json!({ "Id": id, "Code": code, "Message": "AQEB1 is not good", "SenderFault": sender });
        let answer = json!({
            "Successful": [{ "Id": "2" }, { "Id": "77" }, { "Id": "x" }],
            "Failed": [
                failed("1", "ReceiptHandleIsInvalid", true),
                failed("0", "InternalError", false),
                failed("3", "RequestThrottled", true),
            ],
        });
        let (results, sent) = deleted(&["AQEB0", "AQEB1", "AQEB2", "AQEB3", "AQEB4"], answer).await;
        let faults: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().err().map(|error| (error.class, error.fault.clone())))
            .collect();
        let transient = Some((ErrorClass::Transient, Fault::Unavailable));
        let lost = Some((ErrorClass::Permanent, Fault::LeaseLost));
        assert_eq!(faults, [transient.clone(), lost, None, transient.clone(), transient]);
        assert!(!results[1].as_ref().unwrap_err().to_string().contains("AQEB1"));
        assert_eq!(sent["Entries"][1], json!({ "Id": "1", "ReceiptHandle": "AQEB1" }));
    }

    #[tokio::test]
    async fn nothing_to_delete_sends_nothing() {
        let sdk = local("http://127.0.0.1:1", "eu-west-1", CALL_TIMEOUT);
        let sqs = Sqs::new(&sdk, "trail", meter());
        assert!(sqs.delete(&[]).await.unwrap().is_empty());
    }

    #[test]
    fn a_part_of_a_second_never_gives_a_message_back() {
        assert_eq!(whole_seconds(Duration::ZERO), 0);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
        assert_eq!(whole_seconds(Duration::MAX), 43_200);
    }
}
