//! What `trailhound doctor` asks AWS about an installation: facts as [`crate::doctor`] judges them. Only [`Installation::send`]
//! writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::{Region, SdkConfig};
use aws_sdk_cloudtrail::types::{EventSelector, ReadWriteType, Trail};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, PointInTimeRecoveryStatus, TimeToLiveStatus,
};
use aws_sdk_kms::types::KeyManagerType;
use aws_sdk_s3::types::{BucketVersioningStatus, Event, NotificationConfigurationFilter};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::{DateTime, error::metadata::ProvideErrorMetadata};
use futures_util::future::join_all;
use time::OffsetDateTime;

use super::errors::{self, Operation};
use super::s3::is_bucket;
use super::{Settings, arn_region, is_region, own_s3, queue_region, tool_session};
use crate::doctor::bucket::{BucketFacts, Log, Notification, Target};
use crate::doctor::caller::Caller;
use crate::doctor::key::KeyFacts;
use crate::doctor::queue::{DeadLetterFacts, Encryption, QueueFacts};
use crate::doctor::round_trip::Stored;
use crate::doctor::table::{Index, Key, TableFacts};
use crate::doctor::topic::{Subscription, TopicFacts};
use crate::doctor::trail::{Management, TrailFacts, TrailStatus};
use crate::doctor::{Arn, Looked, Unknown};
use crate::ports::{ErrorClass, Fault, PortError};

/// Not more pages of subscriptions are read: 100 each.
const MAX_PAGES: usize = 5;

/// Not more keys are looked at to find a log file.
const MAX_KEYS: i32 = 1_000;

/// Not more steps down into the folders of a bucket to find a log file: prefix, organization, account, kind, region, year,
/// month, day.
const MAX_DEPTH: usize = 10;

const fn operation(name: &'static str, action: &'static str, kms: &'static str) -> Operation {
    Operation { name, action, kms, refused: ErrorClass::Config, invalid: ErrorClass::Config }
}

const fn asks(name: &'static str) -> Operation {
    operation(name, name, "kms:Decrypt")
}

const IDENTITY: Operation = asks("sts:GetCallerIdentity");
const QUEUE_ATTRIBUTES: Operation = asks("sqs:GetQueueAttributes");
const QUEUE_URL: Operation = asks("sqs:GetQueueUrl");
const SEND: Operation = operation("sqs:SendMessage", "sqs:SendMessage", "kms:GenerateDataKey");
const TOPIC_ATTRIBUTES: Operation = asks("sns:GetTopicAttributes");
const SUBSCRIPTIONS: Operation = asks("sns:ListSubscriptionsByTopic");
const TABLE: Operation = asks("dynamodb:DescribeTable");
const TTL: Operation = asks("dynamodb:DescribeTimeToLive");
const BACKUPS: Operation = asks("dynamodb:DescribeContinuousBackups");
const GET_ITEM: Operation = asks("dynamodb:GetItem");
const TRAILS: Operation = asks("cloudtrail:DescribeTrails");
const TRAIL_STATUS: Operation = asks("cloudtrail:GetTrailStatus");
const SELECTORS: Operation = asks("cloudtrail:GetEventSelectors");
const DESCRIBE_KEY: Operation = asks("kms:DescribeKey");
const KEY_POLICY: Operation = asks("kms:GetKeyPolicy");
const HEAD_BUCKET: Operation = operation("s3:HeadBucket", "s3:ListBucket", "kms:Decrypt");
const LIST: Operation = operation("s3:ListObjectsV2", "s3:ListBucket", "kms:Decrypt");
const GET_OBJECT: Operation = asks("s3:GetObject");
const NOTIFICATION: Operation =
    operation("s3:GetBucketNotificationConfiguration", "s3:GetBucketNotification", "kms:Decrypt");
const ENCRYPTION: Operation = operation("s3:GetBucketEncryption", "s3:GetEncryptionConfiguration", "kms:Decrypt");
const VERSIONING: Operation = asks("s3:GetBucketVersioning");

/// The installation, as an operator's role sees it.
pub struct Installation {
    sdk: SdkConfig,
    own_s3: bool,
    settings: Settings,
    origin: String,
    heard: Arc<Heard>,
    /// By bucket, where it is not in the session's region.
    bucket_regions: Mutex<HashMap<String, String>>,
}

/// What an answer tells beside what was asked: what time it is there.
#[derive(Debug)]
struct Heard(AtomicI64);

/// No answer told the time yet.
const UNHEARD: i64 = i64::MIN;

#[derive(Debug)]
struct Listener(Arc<Heard>);

impl Intercept for Listener {
    fn name(&self) -> &'static str {
        "Listener"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let there = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
        if let (Some(there), Some(Ok(here))) = (there, here.map(|here| i64::try_from(here.as_secs()))) {
            self.0.0.store(here.saturating_sub(there.secs()), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What an error means for the doctor. `on` is the ARN that a permission would name.
fn unknown(error: PortError, on: &str) -> Unknown {
    match error.fault {
        Fault::Denied { action } | Fault::KmsDenied { action } => {
            Unknown::Denied { action: action.to_owned(), on: on.to_owned() }
        }
        Fault::Missing => Unknown::Missing(error.detail),
        Fault::Credentials => Unknown::Credentials(error.to_string()),
        _ => Unknown::Failed(error.to_string()),
    }
}

type SdkError<E> =
    aws_smithy_runtime_api::client::result::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>;

fn refused<E>(error: SdkError<E>, operation: &Operation, on: &str) -> Unknown
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    unknown(errors::classify(error, operation, on), on)
}

impl Installation {
    /// With credentials, region and endpoints from the SDK's own chain; what is missing there is the error of each call.
    pub async fn open(settings: &Settings) -> Self {
        let sdk = tool_session(settings, None).await;
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let origin = if let Some(name) = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find(|name| set(name)) {
            name.to_owned()
        } else if ProfileFileRegionProvider::new().region().await.is_some() {
            "the profile".to_owned()
        } else if queue_region(&settings.queue_url).is_some() {
            "the queue's URL".to_owned()
        } else if arn_region(&settings.topic_arn).is_some() {
            "the topic's ARN".to_owned()
        } else {
            "the machine".to_owned()
        };
        Self {
            own_s3: own_s3(&sdk),
            sdk,
            settings: settings.clone(),
            origin,
            heard: Arc::new(Heard(AtomicI64::new(UNHEARD))),
            bucket_regions: Mutex::default(),
        }
    }

    /// The region in force, and where it comes from.
    pub fn region(&self) -> (Option<&str>, &str) {
        (self.sdk.region().map(AsRef::as_ref), &self.origin)
    }

    pub fn queue_region(&self) -> Option<&str> {
        queue_region(&self.settings.queue_url)
    }

    pub fn topic_region(&self) -> Option<&str> {
        arn_region(&self.settings.topic_arn)
    }

    fn within(&self, region: Option<&str>) -> SdkConfig {
        match region.filter(|region| is_region(region)) {
            Some(region) => self.sdk.to_builder().region(Region::new(region.to_owned())).build(),
            None => self.sdk.clone(),
        }
    }

    fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.within(self.queue_region()))
    }

    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.sdk)
    }

    fn arn(&self, service: &str, region: Option<&str>, account: &str, resource: &str) -> String {
        let region = region.or_else(|| self.region().0).unwrap_or("*");
        let partition = match region {
            _ if region.starts_with("cn-") => "aws-cn",
            _ if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        match service {
            "s3" => format!("arn:{partition}:s3:::{resource}"),
            _ => format!("arn:{partition}:{service}:{region}:{account}:{resource}"),
        }
    }

    /// The queue's ARN as its URL tells it; `None` where it does not.
    pub fn queue_arn(&self) -> Option<String> {
        let mut path = self.settings.queue_url.rsplit('/');
        let (name, account) = (path.next()?, path.next()?);
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        is_account.then(|| self.arn("sqs", self.queue_region(), account, name))
    }

    /// Who the credentials belong to. Its answer tells the time.
    pub async fn caller(&self) -> Looked<Caller> {
        let config = aws_sdk_sts::config::Builder::from(&self.sdk).interceptor(Listener(Arc::clone(&self.heard)));
        let sent = aws_sdk_sts::Client::from_conf(config.build()).get_caller_identity().send().await;
        let answer = sent.map_err(|error| refused(error, &IDENTITY, "*"))?;
        Ok(Caller { account: answer.account.unwrap_or_default(), arn: answer.arn.unwrap_or_default() })
    }

    /// By how many seconds the local clock is ahead of that of the last answer.
    pub fn clock_ahead(&self) -> Option<i64> {
        Some(self.heard.0.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNHEARD)
    }

    /// A key of KMS by id, ARN or alias, as a resource in `region` names it. Its policy is asked for only if `policy`.
    async fn key(&self, id: &str, region: Option<&str>, policy: bool) -> Looked<KeyFacts> {
        let client = aws_sdk_kms::Client::new(&self.within(arn_region(id).or(region)));
        let sent = client.describe_key().key_id(id).send().await;
        let answer = sent.map_err(|error| refused(error, &DESCRIBE_KEY, id))?;
        let metadata = answer.key_metadata.ok_or_else(|| Unknown::Failed("KMS described no key".to_owned()))?;
        let arn = metadata.arn.clone().unwrap_or_else(|| metadata.key_id.clone());
        let managed = metadata.key_manager == Some(KeyManagerType::Aws);
        let policy = if policy && !managed {
            let sent = client.get_key_policy().key_id(&arn).policy_name("default").send().await;
            sent.map(|answer| answer.policy).map_err(|error| refused(error, &KEY_POLICY, &arn))
        } else {
            Ok(None)
        };
        let state = metadata.key_state.map(|state| state.as_str().to_owned());
        let state = state.unwrap_or_else(|| if metadata.enabled { "Enabled" } else { "Disabled" }.to_owned());
        Ok(KeyFacts { arn, state, managed, policy })
    }

    async fn queue_attributes(&self, url: &str, on: &str) -> Looked<HashMap<QueueAttributeName, String>> {
        let request = self.sqs().get_queue_attributes().queue_url(url);
        let sent = request.attribute_names(QueueAttributeName::All).send().await;
        let answer = sent.map_err(|error| refused(error, &QUEUE_ATTRIBUTES, on))?;
        Ok(answer.attributes.unwrap_or_default())
    }

    pub async fn queue(&self) -> Looked<QueueFacts> {
        let url = &self.settings.queue_url;
        let on = self.queue_arn().unwrap_or_else(|| url.clone());
        let all = self.queue_attributes(url, &on).await?;
        let text = |name: QueueAttributeName| all.get(&name).filter(|text| !text.is_empty()).cloned();
        let encryption = match text(QueueAttributeName::KmsMasterKeyId) {
            Some(id) => {
                let key = Box::pin(self.key(&id, self.queue_region(), true)).await;
                Encryption::Kms { id, key }
            }
            None if text(QueueAttributeName::SqsManagedSseEnabled).as_deref() == Some("true") => Encryption::Sqs,
            None => Encryption::None,
        };
        Ok(QueueFacts {
            url: url.clone(),
            arn: text(QueueAttributeName::QueueArn).unwrap_or(on),
            visibility: number(&all, &QueueAttributeName::VisibilityTimeout),
            retention: number(&all, &QueueAttributeName::MessageRetentionPeriod),
            visible: number(&all, &QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(&all, &QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            encryption,
            redrive_policy: text(QueueAttributeName::RedrivePolicy),
            policy: text(QueueAttributeName::Policy),
        })
    }

    pub async fn dead_letters(&self, arn: &str) -> Looked<DeadLetterFacts> {
        let Some(Arn { account, resource, .. }) = Arn::parse(arn) else {
            return Err(Unknown::Missing(format!("\"{arn}\" is not the ARN of a queue")));
        };
        let request = self.sqs().get_queue_url().queue_name(resource).queue_owner_aws_account_id(account);
        let answer = request.send().await.map_err(|error| refused(error, &QUEUE_URL, arn))?;
        let url = answer.queue_url.unwrap_or_default();
        let all = self.queue_attributes(&url, arn).await?;
        Ok(DeadLetterFacts {
            url,
            retention: number(&all, &QueueAttributeName::MessageRetentionPeriod),
            visible: number(&all, &QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(&all, &QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        })
    }

    pub async fn topic(&self) -> Looked<TopicFacts> {
        let arn = &self.settings.topic_arn;
        let client = aws_sdk_sns::Client::new(&self.within(arn_region(arn)));
        let sent = client.get_topic_attributes().topic_arn(arn).send().await;
        let answer = sent.map_err(|error| refused(error, &TOPIC_ATTRIBUTES, arn))?;
        let id = answer.attributes().and_then(|all| all.get("KmsMasterKeyId")).filter(|id| !id.is_empty());
        let key = match id {
            Some(id) => Some(Box::pin(self.key(id, arn_region(arn), false)).await),
            None => None,
        };
        Ok(TopicFacts { arn: arn.clone(), key, subscriptions: Box::pin(self.subscriptions(arn)).await })
    }

    /// Of any topic, up to a bound.
    pub async fn subscriptions(&self, topic: &str) -> Looked<Vec<Subscription>> {
        let client = aws_sdk_sns::Client::new(&self.within(arn_region(topic)));
        let (mut all, mut next) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let request = client.list_subscriptions_by_topic().topic_arn(topic).set_next_token(next);
            let page = request.send().await.map_err(|error| refused(error, &SUBSCRIPTIONS, topic))?;
            all.extend(page.subscriptions().iter().map(|one| Subscription {
                protocol: one.protocol().unwrap_or_default().to_owned(),
                endpoint: one.endpoint().unwrap_or_default().to_owned(),
                // Until it is confirmed, a word stands here: PendingConfirmation. After it was deleted, another.
                confirmed: one.subscription_arn().is_some_and(|arn| arn.starts_with("arn:")),
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// `account`: whose table it is, for the statement that a denial asks for.
    pub async fn table(&self, account: &str) -> Looked<TableFacts> {
        let (client, name) = (self.dynamodb(), &self.settings.table);
        let on = self.arn("dynamodb", None, account, &format!("table/{name}"));
        let (described, ttl, backups) = tokio::join!(
            client.describe_table().table_name(name).send(),
            client.describe_time_to_live().table_name(name).send(),
            client.describe_continuous_backups().table_name(name).send(),
        );
        let described = described.map_err(|error| refused(error, &TABLE, &on))?;
        let table = described.table.ok_or_else(|| Unknown::Failed("DynamoDB described no table".to_owned()))?;
        let keys = |schema: &[KeySchemaElement]| keys_of(schema, table.attribute_definitions());
        let ttl = ttl.map_err(|error| refused(error, &TTL, &on)).map(|answer| {
            let ttl = answer.time_to_live_description?;
            let on = matches!(ttl.time_to_live_status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
            ttl.attribute_name.filter(|_| on)
        });
        let recovery = backups.map_err(|error| refused(error, &BACKUPS, &on)).map(|answer| {
            let recovery = answer.continuous_backups_description.and_then(|it| it.point_in_time_recovery_description);
            let status = recovery.and_then(|it| it.point_in_time_recovery_status);
            status == Some(PointInTimeRecoveryStatus::Enabled)
        });
        let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
        Ok(TableFacts {
            name: name.clone(),
            arn: table.table_arn().unwrap_or_default().to_owned(),
            status: table.table_status().map_or_else(String::new, |status| status.as_str().to_owned()),
            keys: keys(table.key_schema()),
            indexes: table
                .global_secondary_indexes()
                .iter()
                .map(|index| Index {
                    name: index.index_name().unwrap_or_default().to_owned(),
                    status: index.index_status().map_or_else(String::new, |status| status.as_str().to_owned()),
                    keys: keys(index.key_schema()),
                })
                .collect(),
            on_demand: billing == Some(&BillingMode::PayPerRequest),
            ttl,
            recovery,
        })
    }

    /// The trails that this account and region can see, those of other regions and of the organization included; only what
    /// the list tells of them. [`Self::look_into`] asks the rest.
    pub async fn trails(&self) -> Looked<Vec<TrailFacts>> {
        let client = aws_sdk_cloudtrail::Client::new(&self.sdk);
        let sent = client.describe_trails().include_shadow_trails(true).send().await;
        let answer = sent.map_err(|error| refused(error, &TRAILS, "*"))?;
        Ok(answer.trail_list.unwrap_or_default().into_iter().map(trail).collect())
    }

    /// Asks what a trail does, and about its key.
    pub async fn look_into(&self, trail: TrailFacts) -> TrailFacts {
        let client = aws_sdk_cloudtrail::Client::new(&self.within(Some(&trail.home_region)));
        let (status, selectors) = tokio::join!(
            client.get_trail_status().name(&trail.arn).send(),
            client.get_event_selectors().trail_name(&trail.arn).send(),
        );
        let status = status.map_err(|error| refused(error, &TRAIL_STATUS, &trail.arn)).map(|answer| TrailStatus {
            logging: answer.is_logging.unwrap_or(false),
            delivered: answer.latest_delivery_time.and_then(|at| OffsetDateTime::from_unix_timestamp(at.secs()).ok()),
            error: answer.latest_delivery_error.filter(|error| !error.is_empty()),
        });
        let management = selectors.map_err(|error| refused(error, &SELECTORS, &trail.arn)).map(|answer| {
            if answer.advanced_event_selectors().is_empty() {
                basic(answer.event_selectors())
            } else {
                advanced(answer.advanced_event_selectors())
            }
        });
        let key = match &trail.key_id {
            Some(id) => Some(Box::pin(self.key(id, Some(&trail.home_region), false)).await),
            None => None,
        };
        TrailFacts { key, status, management, ..trail }
    }

    fn s3(&self, bucket: &str) -> aws_sdk_s3::Client {
        let region = self.bucket_regions.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned();
        let config = aws_sdk_s3::config::Builder::from(&self.within(region.as_deref()))
            .force_path_style(self.own_s3)
            .response_checksum_validation(aws_sdk_s3::config::ResponseChecksumValidation::WhenRequired);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// A bucket, and one of its log files under one of `prefixes`. `account`: the caller's, which may own it.
    pub async fn bucket(&self, name: &str, account: Option<&str>, prefixes: &[String]) -> BucketFacts {
        let on = self.arn("s3", None, "", name);
        if !is_bucket(name) {
            let wrong = || Unknown::Missing(format!("\"{name}\" is not the name of a bucket"));
            return BucketFacts {
                name: name.to_owned(),
                region: Err(wrong()),
                owner: None,
                notification: Err(wrong()),
                key: Err(wrong()),
                versioned: Err(wrong()),
                log: Err(wrong()),
            };
        }
        let region = Box::pin(self.locate(name, &on)).await;
        let client = self.s3(name);
        let belongs = async {
            // Asked as its owner, S3 refuses whoever names another account.
            let account = account?;
            let sent = client.head_bucket().bucket(name).expected_bucket_owner(account).send().await;
            sent.is_ok().then(|| account.to_owned())
        };
        let (owner, notification, encryption, versioning) = tokio::join!(
            belongs,
            client.get_bucket_notification_configuration().bucket(name).send(),
            client.get_bucket_encryption().bucket(name).send(),
            client.get_bucket_versioning().bucket(name).send(),
        );
        let notification = notification.map_err(|error| refused(error, &NOTIFICATION, &on)).map(|answer| {
            let queues = answer.queue_configurations().iter();
            let topics = answer.topic_configurations().iter();
            Notification {
                targets: queues
                    .map(|to| target(to.queue_arn(), to.events(), to.filter()))
                    .chain(topics.map(|to| target(to.topic_arn(), to.events(), to.filter())))
                    .collect(),
                event_bridge: answer.event_bridge_configuration().is_some(),
            }
        });
        let bucket_region = region.as_ref().ok().and_then(Option::as_deref);
        let key = match encryption {
            Ok(answer) => {
                let rules = answer.server_side_encryption_configuration.map(|it| it.rules).unwrap_or_default();
                let id = rules
                    .iter()
                    .filter_map(|rule| rule.apply_server_side_encryption_by_default())
                    .find_map(|default| default.kms_master_key_id());
                match id {
                    Some(id) => Ok(Some(Box::pin(self.key(id, bucket_region, false)).await)),
                    None => Ok(None),
                }
            }
            // Buckets of before 2023 whose owner never chose: SSE-S3 all the same.
            Err(error) if error.code() == Some("ServerSideEncryptionConfigurationNotFoundError") => Ok(None),
            Err(error) => Err(refused(error, &ENCRYPTION, &on)),
        };
        let versioned = versioning
            .map(|answer| answer.status == Some(BucketVersioningStatus::Enabled))
            .map_err(|error| refused(error, &VERSIONING, &on));
        let log = Box::pin(Self::a_log(&client, name, &on, prefixes)).await;
        BucketFacts { name: name.to_owned(), region, owner, notification, key, versioned, log }
    }

    /// Where a bucket is, and whether it is there. Remembers the region for later calls.
    async fn locate(&self, name: &str, on: &str) -> Looked<Option<String>> {
        let home = self.region().0.map(str::to_owned);
        let sent = self.s3(name).head_bucket().bucket(name).send().await;
        let error = match sent {
            Ok(answer) => return Ok(answer.bucket_region.or(home)),
            Err(error) => error,
        };
        let raw = error.raw_response();
        let elsewhere = raw.and_then(|raw| raw.headers().get("x-amz-bucket-region")).filter(|region| is_region(region));
        let elsewhere = elsewhere.filter(|_| !self.own_s3).map(str::to_owned);
        let status = raw.map(|raw| raw.status().as_u16());
        match (elsewhere, status) {
            (Some(region), Some(301 | 302 | 307 | 400)) if Some(&region) != home.as_ref() => {
                let mut regions = self.bucket_regions.lock().unwrap_or_else(PoisonError::into_inner);
                regions.insert(name.to_owned(), region.clone());
                Ok(Some(region))
            }
            _ => Err(refused(error, &HEAD_BUCKET, on)),
        }
    }

    /// Opens a log file: the last of the first keys below the last folder of each level, which is a recent one.
    async fn a_log(client: &aws_sdk_s3::Client, bucket: &str, on: &str, prefixes: &[String]) -> Looked<Log> {
        for start in prefixes {
            let mut prefix = start.clone();
            for _ in 0..MAX_DEPTH {
                let request = client.list_objects_v2().bucket(bucket).prefix(&prefix).delimiter("/");
                let page = request.max_keys(MAX_KEYS).send().await.map_err(|error| refused(error, &LIST, on))?;
                let mut keys = page.contents().iter().filter_map(|object| object.key());
                if let Some(key) = keys.rfind(|key| key.ends_with(".json.gz")) {
                    return Ok(Self::open_log(client, bucket, on, key).await);
                }
                // Digests lie beside the logs, and are none.
                let mut folders = page.common_prefixes().iter().filter_map(|folder| folder.prefix());
                let Some(folder) = folders.rfind(|folder| !folder.ends_with("/CloudTrail-Digest/")) else {
                    break;
                };
                folder.clone_into(&mut prefix);
            }
        }
        Ok(Log::None)
    }

    async fn open_log(client: &aws_sdk_s3::Client, bucket: &str, on: &str, key: &str) -> Log {
        let key = key.to_owned();
        match client.get_object().bucket(bucket).key(&key).range("bytes=0-0").send().await {
            Ok(_) => Log::Opened(key),
            Err(error) => {
                let why = refused(error, &GET_OBJECT, &format!("{on}/*"));
                Log::Closed { key, why }
            }
        }
    }

    /// Sends a message to the queue.
    pub async fn send(&self, body: &str, on: &str) -> Looked<()> {
        let request = self.sqs().send_message().queue_url(&self.settings.queue_url).message_body(body);
        request.send().await.map(drop).map_err(|error| refused(error, &SEND, on))
    }

    /// What the item of an event says, if it is there.
    pub async fn stored(&self, event_id: &str, timestamp: &str, account: &str) -> Looked<Option<Stored>> {
        let on = self.arn("dynamodb", None, account, &format!("table/{}", self.settings.table));
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let request = self.dynamodb().get_item().table_name(&self.settings.table).consistent_read(true);
        let request = request.key("EventId", text(event_id)).key("Timestamp", text(timestamp));
        let request =
            request.projection_expression("#rules, AlertedAt, AlertIds").expression_attribute_names("#rules", "Rules");
        let answer = request.send().await.map_err(|error| refused(error, &GET_ITEM, &on))?;
        Ok(answer.item.filter(|item| !item.is_empty()).map(|item| {
            let set = |name: &str| item.get(name).and_then(|value| value.as_ss().ok()).cloned().unwrap_or_default();
            let alerted_at = item.get("AlertedAt").and_then(|value| value.as_s().ok()).cloned();
            Stored { rules: set("Rules"), alerted_at, alert_ids: set("AlertIds") }
        }))
    }

    /// The subscriptions of each of these topics.
    pub async fn subscriptions_of(&self, topics: Vec<String>) -> Vec<(String, Looked<Vec<Subscription>>)> {
        join_all(topics.into_iter().map(async |topic| {
            let subscriptions = Box::pin(self.subscriptions(&topic)).await;
            (topic, subscriptions)
        }))
        .await
    }
}

fn number(all: &HashMap<QueueAttributeName, String>, name: &QueueAttributeName) -> u64 {
    all.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn keys_of(schema: &[KeySchemaElement], definitions: &[AttributeDefinition]) -> Vec<Key> {
    let type_of = |name: &str| {
        let definition = definitions.iter().find(|definition| definition.attribute_name() == name);
        definition.map_or_else(String::new, |definition| definition.attribute_type().as_str().to_owned())
    };
    schema
        .iter()
        .map(|key| Key {
            name: key.attribute_name().to_owned(),
            kind: key.key_type().as_str().to_owned(),
            type_name: type_of(key.attribute_name()),
        })
        .collect()
}

fn target(arn: &str, events: &[Event], filter: Option<&NotificationConfigurationFilter>) -> Target {
    let rules =
        filter.and_then(|filter| filter.key()).map(aws_sdk_s3::types::S3KeyFilter::filter_rules).unwrap_or_default();
    let value = |name: &str| {
        let named = |rule: &&aws_sdk_s3::types::FilterRule| {
            rule.name().is_some_and(|found| found.as_str().eq_ignore_ascii_case(name))
        };
        rules.iter().find(named).and_then(|rule| rule.value()).unwrap_or_default().to_owned()
    };
    Target {
        arn: arn.to_owned(),
        events: events.iter().map(|event| event.as_str().to_owned()).collect(),
        prefix: value("prefix"),
        suffix: value("suffix"),
    }
}

/// What the list tells of a trail.
fn trail(trail: Trail) -> TrailFacts {
    let unasked = || Unknown::Failed("not asked".to_owned());
    TrailFacts {
        name: trail.name.unwrap_or_default(),
        arn: trail.trail_arn.unwrap_or_default(),
        bucket: trail.s3_bucket_name.unwrap_or_default(),
        prefix: trail.s3_key_prefix.filter(|prefix| !prefix.is_empty()),
        home_region: trail.home_region.unwrap_or_default(),
        multi_region: trail.is_multi_region_trail.unwrap_or(false),
        global_events: trail.include_global_service_events.unwrap_or(false),
        validation: trail.log_file_validation_enabled.unwrap_or(false),
        organization: trail.is_organization_trail.unwrap_or(false),
        topic: trail.sns_topic_arn.filter(|arn| !arn.is_empty()),
        key_id: trail.kms_key_id.filter(|id| !id.is_empty()),
        key: None,
        status: Err(unasked()),
        management: Err(unasked()),
    }
}

/// <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_EventSelector.html>: without any, all are recorded.
fn basic(selectors: &[EventSelector]) -> Management {
    let recording: Vec<&EventSelector> =
        selectors.iter().filter(|selector| selector.include_management_events.unwrap_or(true)).collect();
    if selectors.is_empty() {
        return Management::All { without: Vec::new() };
    }
    let is_all =
        |selector: &&&EventSelector| selector.read_write_type.as_ref().is_none_or(|which| *which == ReadWriteType::All);
    if let Some(all) = recording.iter().find(is_all) {
        return Management::All { without: all.exclude_management_event_sources().to_vec() };
    }
    match recording.first().and_then(|selector| selector.read_write_type.as_ref()) {
        Some(which) => Management::Some(which.as_str().to_owned()),
        None => Management::None,
    }
}

/// <https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_AdvancedEventSelector.html>
fn advanced(selectors: &[aws_sdk_cloudtrail::types::AdvancedEventSelector]) -> Management {
    let mut some = None;
    for selector in selectors {
        let fields = selector.field_selectors();
        let of_management = fields
            .iter()
            .any(|field| field.field() == "eventCategory" && field.equals().iter().any(|value| value == "Management"));
        if !of_management {
            continue;
        }
        let mut without = Vec::new();
        let mut narrowed = Vec::new();
        for field in fields {
            match field.field() {
                "eventCategory" => {}
                "eventSource" if !field.not_equals().is_empty() => without.extend(field.not_equals().iter().cloned()),
                name => narrowed.push(format!("{name} {}", field.equals().join(" or "))),
            }
        }
        if narrowed.is_empty() {
            return Management::All { without };
        }
        some.get_or_insert(narrowed.join(", "));
    }
    some.map_or(Management::None, Management::Some)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_cloudtrail::types::{AdvancedEventSelector, AdvancedFieldSelector};

    use super::super::tests::serve;
    use super::super::{STALL_TIMEOUT, local};
    use super::*;

    fn installation(endpoint: &str) -> Installation {
        Installation {
            sdk: local(endpoint, "eu-west-1", STALL_TIMEOUT),
            own_s3: true,
            settings: Settings {
                queue_url: "https://sqs.eu-west-1.amazonaws.com/111122223333/trail".to_owned(),
                ..Settings::default()
            },
            origin: String::new(),
            heard: Arc::new(Heard(AtomicI64::new(UNHEARD))),
            bucket_regions: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn an_answer_tells_how_far_the_clock_is_off_even_where_it_refuses() {
        let there = SystemTime::now() - Duration::from_secs(400);
        let date = DateTime::from(there).fmt(Format::HttpDate).unwrap();
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>\
                    <Message>Signature expired: 20260501T120000Z is now earlier</Message></Error></ErrorResponse>";
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\ndate: {date}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let (endpoint, _requests) = serve(vec![answer.into_bytes()]).await;
        let installation = installation(&endpoint);
        assert_eq!(installation.clock_ahead(), None);
        let refused = installation.caller().await.unwrap_err();
        assert!(matches!(&refused, Unknown::Credentials(why) if why.contains("clock")), "{refused:?}");
        let ahead = installation.clock_ahead().unwrap();
        assert!((399..=410).contains(&ahead), "{ahead}");
    }

    #[tokio::test]
    async fn a_denial_names_the_action_and_the_arn_to_grant_it_on() {
        let body = r#"{"__type":"com.amazonaws.sqs#AccessDenied","message":"no"}"#;
        let answer =
            format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let (endpoint, _requests) = serve(vec![answer.into_bytes()]).await;
        let mut installation = installation(&endpoint);
        assert_eq!(installation.queue_arn().as_deref(), Some("arn:aws:sqs:eu-west-1:111122223333:trail"));
        let denied = Unknown::Denied {
            action: "sqs:GetQueueAttributes".to_owned(),
            on: "arn:aws:sqs:eu-west-1:111122223333:trail".to_owned(),
        };
        assert_eq!(installation.queue().await, Err(denied));
        installation.settings.queue_url = "http://127.0.0.1:4566/queue/trail".to_owned();
        assert_eq!(installation.queue_arn(), None);
    }

    #[tokio::test]
    async fn a_name_that_no_bucket_has_is_not_asked_about() {
        let installation = installation("http://127.0.0.1:1");
        let facts = Box::pin(installation.bucket("arn:aws:s3:::logs", None, &[])).await;
        assert!(matches!(facts.region, Err(Unknown::Missing(why)) if why.contains("is not the name of a bucket")));
    }

    fn selector(which: Option<ReadWriteType>, management: bool, without: &[&str]) -> EventSelector {
        EventSelector::builder()
            .set_read_write_type(which)
            .include_management_events(management)
            .set_exclude_management_event_sources(Some(without.iter().map(ToString::to_string).collect()))
            .build()
    }

    #[test]
    fn what_a_trail_records_is_read_from_its_selectors() {
        let all = |without: &[&str]| Management::All { without: without.iter().map(ToString::to_string).collect() };
        let write = || Some(ReadWriteType::WriteOnly);
        assert_eq!(basic(&[]), all(&[]));
        assert_eq!(basic(&[selector(None, true, &[])]), all(&[]));
        assert_eq!(basic(&[selector(None, true, &["kms.amazonaws.com"])]), all(&["kms.amazonaws.com"]));
        assert_eq!(basic(&[selector(write(), true, &[])]), Management::Some("WriteOnly".to_owned()));
        assert_eq!(basic(&[selector(write(), true, &[]), selector(None, true, &[])]), all(&[]));
        assert_eq!(basic(&[selector(None, false, &[])]), Management::None);

        let equals =
            |field: &str, value: &str| AdvancedFieldSelector::builder().field(field).equals(value).build().unwrap();
        let advanced_of = |fields: Vec<AdvancedFieldSelector>| {
            advanced(&[AdvancedEventSelector::builder().set_field_selectors(Some(fields)).build().unwrap()])
        };
        let management = || equals("eventCategory", "Management");
        assert_eq!(advanced_of(vec![management()]), all(&[]));
        assert_eq!(advanced_of(vec![equals("eventCategory", "Data")]), Management::None);
        let writes = advanced_of(vec![management(), equals("readOnly", "false")]);
        assert_eq!(writes, Management::Some("readOnly false".to_owned()));
        let but =
            AdvancedFieldSelector::builder().field("eventSource").not_equals("kms.amazonaws.com").build().unwrap();
        assert_eq!(advanced_of(vec![management(), but]), all(&["kms.amazonaws.com"]));
    }
}
