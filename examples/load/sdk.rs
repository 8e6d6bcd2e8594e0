//! The same calls as the daemon's, by the SDK's clients alone, as an application without wishes would make them: what is
//! fetched is thrown away.

use std::sync::Arc;

use anyhow::Context as _;
use aws_config::BehaviorVersion;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use serde_json::Value;
use tokio::sync::Semaphore;

/// Receives, gets and deletes until killed.
pub fn run(queue_url: &str, concurrency: usize, pollers: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let sdk = aws_config::defaults(BehaviorVersion::latest()).load().await;
        let objects = aws_sdk_s3::config::Builder::from(&sdk)
            .force_path_style(true)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        let client = Arc::new(Client {
            queue: aws_sdk_sqs::Client::new(&sdk),
            objects: aws_sdk_s3::Client::from_conf(objects),
            queue_url: queue_url.to_owned(),
        });
        let slots = Arc::new(Semaphore::new(concurrency));
        let pollers = (0..pollers).map(|_| tokio::spawn(poll(Arc::clone(&client), Arc::clone(&slots))));
        for poller in pollers.collect::<Vec<_>>() {
            poller.await??;
        }
        Ok(())
    })
}

struct Client {
    queue: aws_sdk_sqs::Client,
    objects: aws_sdk_s3::Client,
    queue_url: String,
}

/// Ten at a time: received, fetched at once, and deleted together.
async fn poll(client: Arc<Client>, slots: Arc<Semaphore>) -> anyhow::Result<()> {
    loop {
        let permit = Arc::clone(&slots).acquire_many_owned(10).await?;
        let received = client
            .queue
            .receive_message()
            .queue_url(&client.queue_url)
            .max_number_of_messages(10)
            .wait_time_seconds(20)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await?;
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            continue;
        }
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            let fetched: Vec<_> =
                messages.iter().map(|message| tokio::spawn(fetch(Arc::clone(&client), message.clone()))).collect();
            for one in fetched {
                one.await??;
            }
            drop(permit);
            let entries = messages.iter().enumerate().map(|(id, message)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(id.to_string())
                    .receipt_handle(message.receipt_handle().unwrap_or_default())
                    .build()
            });
            let entries = entries.collect::<Result<Vec<_>, _>>()?;
            client.queue.delete_message_batch().queue_url(&client.queue_url).set_entries(Some(entries)).send().await?;
            anyhow::Ok(())
        });
    }
}

async fn fetch(client: Arc<Client>, message: Message) -> anyhow::Result<()> {
    let body: Value = serde_json::from_str(message.body().unwrap_or_default())?;
    let text = |path| body.pointer(path).and_then(Value::as_str).with_context(|| format!("a message without {path}"));
    let (bucket, key) = (text("/Records/0/s3/bucket/name")?, text("/Records/0/s3/object/key")?);
    let mut object = client.objects.get_object().bucket(bucket).key(key).send().await?;
    while let Some(chunk) = object.body.try_next().await? {
        drop(chunk);
    }
    Ok(())
}
