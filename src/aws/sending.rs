//! Sends messages to the queue, for `replay`.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{SendMessageBatchRequestEntry, SendMessageBatchResultEntry};

use super::Meter;
use super::errors::{self, Operation};
use super::sqs::results;
use crate::ports::{ErrorClass, Fault, PortError};
use crate::replay::MessageSender;

const SEND: Operation = Operation {
    name: "sqs:SendMessageBatch",
    action: "sqs:SendMessage",
    kms: "kms:GenerateDataKey",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Config,
};

pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) queue_url: String,
    pub(super) meter: Meter,
}

impl Sender {
    pub(super) fn new(sdk: &SdkConfig, queue_url: &str, meter: Meter) -> Self {
        Self { client: Client::new(sdk), queue_url: queue_url.to_owned(), meter }
    }
}

#[async_trait]
impl MessageSender for Sender {
    async fn send(&self, bodies: &[String]) -> Result<Vec<Result<(), PortError>>, PortError> {
        // The id of an entry is its position.
        let entries = bodies.iter().enumerate().map(|(i, body)| {
            SendMessageBatchRequestEntry::builder()
                .id(i.to_string())
                .message_body(body)
                .build()
                .map_err(|error| errors::failure(&SEND, ErrorClass::Permanent, Fault::Invalid, &error.to_string()))
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        self.meter
            .call(SEND.name, async {
                let request = self.client.send_message_batch().queue_url(&self.queue_url);
                let answer = request.set_entries(Some(entries)).send().await;
                let answer = answer.map_err(|error| errors::classify(error, &SEND, &self.queue_url))?;
                let sent = answer.successful().iter().map(SendMessageBatchResultEntry::id);
                Ok(results(&SEND, &self.queue_url, bodies.len(), sent, answer.failed()))
            })
            .await
    }
}
