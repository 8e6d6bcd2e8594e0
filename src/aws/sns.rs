//! Alerts to an SNS topic, standard or FIFO.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};

use super::Meter;
use super::errors::{self, Operation};
use crate::alert::{AttributeValue, Outbound};
use crate::ports::{AlertPublisher, ErrorClass, Fault, PortError};

const PUBLISH: Operation = Operation {
    name: "sns:PublishBatch",
    action: "sns:Publish",
    kms: "kms:GenerateDataKey",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Permanent,
};
const ATTRIBUTES: Operation = Operation {
    name: "sns:GetTopicAttributes",
    action: "sns:GetTopicAttributes",
    kms: "kms:Decrypt",
    refused: ErrorClass::Config,
    invalid: ErrorClass::Config,
};

pub(super) struct Sns {
    client: Client,
    topic_arn: String,
    meter: Meter,
}

impl Sns {
    pub(super) fn new(sdk: &SdkConfig, topic_arn: &str, meter: Meter) -> Self {
        Self { client: Client::new(sdk), topic_arn: topic_arn.to_owned(), meter }
    }

    /// The entry of a batch; its id is its position.
    fn entry(&self, position: usize, alert: &Outbound) -> Result<PublishBatchRequestEntry, PortError> {
        let fifo = self.topic_arn.rsplit('.').next() == Some("fifo");
        let attributes = attributes(&alert.attributes)?;
        PublishBatchRequestEntry::builder()
            .id(position.to_string())
            .subject(&alert.subject)
            .message(&alert.message)
            .message_structure("json")
            .set_message_attributes((!attributes.is_empty()).then_some(attributes))
            .set_message_group_id(fifo.then(|| alert.group_id.clone()))
            .set_message_deduplication_id(fifo.then(|| alert.alert_id.clone()))
            .build()
            .map_err(|error| invalid(&error))
    }
}

#[async_trait]
impl AlertPublisher for Sns {
    async fn publish(&self, alerts: &[Outbound]) -> Result<Vec<Result<String, PortError>>, PortError> {
        if alerts.is_empty() {
            return Ok(Vec::new());
        }
        let entries =
            alerts.iter().enumerate().map(|(i, alert)| self.entry(i, alert)).collect::<Result<Vec<_>, _>>()?;
        self.meter
            .call(PUBLISH.name, async {
                let request = self.client.publish_batch().topic_arn(&self.topic_arn);
                let answer = request.set_publish_batch_request_entries(Some(entries)).send().await;
                let answer = answer.map_err(|error| errors::classify(error, &PUBLISH, &self.topic_arn))?;
                let mut results: Vec<_> = alerts
                    .iter()
                    .map(|_| Err(errors::unavailable(&PUBLISH, "the answer does not speak of this alert", None)))
                    .collect();
                for failed in answer.failed() {
                    if let Some(result) = slot(&mut results, failed.id()) {
                        let (code, message) = (failed.code(), failed.message());
                        *result = Err(errors::classify_entry(
                            &PUBLISH,
                            &self.topic_arn,
                            code,
                            message,
                            failed.sender_fault(),
                        ));
                    }
                }
                for accepted in answer.successful() {
                    if let Some(result) = accepted.id().and_then(|id| slot(&mut results, id)) {
                        *result = Ok(accepted.message_id().unwrap_or_default().to_owned());
                    }
                }
                Ok(results)
            })
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.meter
            .call(ATTRIBUTES.name, async {
                let sent = self.client.get_topic_attributes().topic_arn(&self.topic_arn).send().await;
                let Err(error) = sent.map(drop).map_err(|error| errors::classify(error, &ATTRIBUTES, &self.topic_arn))
                else {
                    return Ok(());
                };
                // Publishing takes sns:Publish only: a denial here is the answer of a topic that is there.
                if matches!(error.fault, Fault::Denied { .. }) { Ok(()) } else { Err(error) }
            })
            .await
    }
}

fn slot<'a, T>(results: &'a mut [T], id: &str) -> Option<&'a mut T> {
    results.get_mut(id.parse::<usize>().ok()?)
}

/// SNS refuses empty values: they are absent.
fn attributes(given: &[(&'static str, AttributeValue)]) -> Result<HashMap<String, MessageAttributeValue>, PortError> {
    let mut attributes = HashMap::new();
    for (name, value) in given {
        let empty = match value {
            AttributeValue::String(text) => text.is_empty(),
            AttributeValue::StringArray(texts) => texts.is_empty(),
        };
        if empty {
            continue;
        }
        let value =
            MessageAttributeValue::builder().data_type(value.data_type()).string_value(value.string_value()).build();
        attributes.insert((*name).to_owned(), value.map_err(|error| invalid(&error))?);
    }
    Ok(attributes)
}

fn invalid(error: &dyn std::error::Error) -> PortError {
    errors::failure(&PUBLISH, ErrorClass::Permanent, Fault::Invalid, &error.to_string())
}
