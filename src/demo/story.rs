//! An account over one hour: its daily noise, and somebody who found a password. Two trails deliver every record, each
//! in files of its own; one file arrives cut off. Pure: a seed and a wall time make the same story again.
//!
//! Record format: <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>.

use std::io::Write as _;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, UtcOffset};

pub(super) const ACCOUNT: &str = "111122223333";

const REGION: &str = "eu-central-1";
/// Where IAM, STS and sign-in events are recorded.
const GLOBAL_REGION: &str = "us-east-1";

/// How many records of noise there are.
const NOISE: usize = 1_400;

/// The two trails: where they write, how many minutes one of their files covers, and what they are called.
const TRAILS: [(&str, i64, &str); 2] = [("", 10, "management-events"), ("org-audit/", 7, "organization-audit")];

/// A record with every field that CloudTrail writes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    event_version: &'static str,
    user_identity: Value,
    pub(super) event_time: String,
    event_source: String,
    pub(super) event_name: String,
    aws_region: &'static str,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: String,
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    request_parameters: Value,
    response_elements: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_event_data: Option<Value>,
    #[serde(rename = "requestID")]
    request_id: String,
    #[serde(rename = "eventID")]
    pub(super) event_id: String,
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    event_type: &'static str,
    management_event: bool,
    recipient_account_id: &'static str,
    event_category: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_credential_from_console: Option<&'static str>,
    #[serde(skip)]
    at: OffsetDateTime,
}

/// A log file as a trail delivers it.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) key: String,
    pub(super) records: Vec<Record>,
    /// The upload broke off: a part of the gzip stream is missing.
    pub(super) cut: bool,
    delivered: OffsetDateTime,
}

impl LogFile {
    /// The object's bytes.
    pub(super) fn body(&self) -> std::io::Result<Vec<u8>> {
        let mut body = gzip(&json!({ "Records": self.records }).to_string())?;
        if self.cut {
            body.truncate(body.len() / 10 * 7);
        }
        Ok(body)
    }
}

/// What is uploaded, in the order of delivery.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub(super) files: Vec<LogFile>,
    /// A digest file of the trail: key and bytes.
    pub(super) digest: (String, Vec<u8>),
}

impl Story {
    /// The story of the hour before `now`.
    pub(super) fn new(seed: u64, now: OffsetDateTime) -> std::io::Result<Self> {
        let now = now.to_offset(UtcOffset::UTC).replace_nanosecond(0).unwrap_or(now);
        let mut writer = Writer { rng: Rng::with_seed(seed), start: now.saturating_sub(Duration::minutes(75)) };
        let mut records: Vec<Record> = (0..NOISE).map(|_| writer.noise()).collect();
        records.extend(writer.attack());
        records.sort_by(|a, b| (a.at, &a.event_id).cmp(&(b.at, &b.event_id)));
        let mut files: Vec<LogFile> =
            TRAILS.iter().flat_map(|(prefix, minutes, _)| writer.deliver(&records, prefix, *minutes)).collect();
        files.sort_by(|a, b| (a.delivered, &a.key).cmp(&(b.delivered, &b.key)));
        // The second trail's first file of the region where most is recorded.
        if let Some(file) = files.iter_mut().find(|file| file.key.starts_with(TRAILS[1].0) && file.key.contains(REGION))
        {
            file.cut = true;
        }
        let digest = writer.digest(&files)?;
        Ok(Self { files, digest })
    }
}

/// Who acts, and from where.
struct Actor {
    identity: Value,
    ip: String,
    agent: String,
    from_console: bool,
}

/// A call, before it becomes a record.
struct Call<'a> {
    source: &'a str,
    name: &'a str,
    read_only: bool,
    request: Value,
    response: Value,
}

impl<'a> Call<'a> {
    fn read(source: &'a str, name: &'a str, request: Value) -> Self {
        Self { source, name, read_only: true, request, response: Value::Null }
    }

    fn write(source: &'a str, name: &'a str, request: Value, response: Value) -> Self {
        Self { source, name, read_only: false, request, response }
    }
}

struct Writer {
    rng: Rng,
    start: OffsetDateTime,
}

impl Writer {
    fn record(&mut self, at: OffsetDateTime, actor: Actor, call: Call<'_>) -> Record {
        let host = call.source.split('.').next().unwrap_or_default();
        let global = matches!(host, "iam" | "signin" | "sts");
        let region = if global { GLOBAL_REGION } else { REGION };
        let endpoint =
            if host == "iam" { "iam.amazonaws.com".to_owned() } else { format!("{host}.{region}.amazonaws.com") };
        let by_service = actor.identity.get("invokedBy").is_some();
        Record {
            event_version: "1.11",
            user_identity: actor.identity,
            event_time: second(at),
            event_source: call.source.to_owned(),
            event_name: call.name.to_owned(),
            aws_region: region,
            source_ip_address: actor.ip,
            user_agent: actor.agent,
            error_code: None,
            error_message: None,
            request_parameters: call.request,
            response_elements: call.response,
            additional_event_data: None,
            request_id: self.uuid(),
            event_id: self.uuid(),
            read_only: call.read_only,
            resources: None,
            event_type: "AwsApiCall",
            management_event: true,
            recipient_account_id: ACCOUNT,
            event_category: "Management",
            tls_details: (!by_service).then(|| {
                json!({
                    "tlsVersion": "TLSv1.3",
                    "cipherSuite": "TLS_AES_128_GCM_SHA256",
                    "clientProvidedHostHeader": endpoint,
                })
            }),
            session_credential_from_console: actor.from_console.then_some("true"),
            at,
        }
    }

    fn noise(&mut self) -> Record {
        let at = self.start.saturating_add(Duration::seconds(self.rng.i64(0..3_600)));
        match self.rng.u32(0..100) {
            0..30 => self.monitoring(at),
            30..50 => self.application(at),
            50..68 => self.service(at),
            68..84 => self.pipeline(at),
            84..96 => self.person(at),
            _ => self.service_denied(at),
        }
    }

    /// A scanner that lists everything, all the time.
    fn monitoring(&mut self, at: OffsetDateTime) -> Record {
        let calls = [
            ("ec2.amazonaws.com", "DescribeInstances", json!({ "instancesSet": {}, "filterSet": {} })),
            ("ec2.amazonaws.com", "DescribeSecurityGroups", json!({ "securityGroupSet": {}, "maxResults": 1000 })),
            ("ec2.amazonaws.com", "DescribeVolumes", json!({ "volumeSet": {}, "filterSet": {}, "maxResults": "500" })),
            ("rds.amazonaws.com", "DescribeDBInstances", Value::Null),
            ("elasticloadbalancing.amazonaws.com", "DescribeLoadBalancers", json!({ "pageSize": 400 })),
            ("lambda.amazonaws.com", "ListFunctions20150331", json!({ "maxItems": 50 })),
            (
                "cloudtrail.amazonaws.com",
                "DescribeTrails",
                json!({ "trailNameList": [], "includeShadowTrails": false }),
            ),
            ("iam.amazonaws.com", "ListRoles", json!({ "maxItems": 1000 })),
            (
                "s3.amazonaws.com",
                "GetBucketEncryption",
                json!({
                    "bucketName": "example-orders-data", "encryption": "", "Host": "example-orders-data.s3.eu-central-1.amazonaws.com",
                }),
            ),
        ];
        let (source, name, request) = self.pick(&calls);
        let actor = self.role(
            "posture-scanner",
            "scanner-session",
            "192.0.2.18",
            "Boto3/1.40.61 md/Botocore#1.40.61 ua/2.1 os/linux#6.1.155 lang/python#3.12.11",
        );
        self.record(at, actor, Call::read(source, name, request))
    }

    /// The shop: its containers read secrets, decrypt, and write objects.
    fn application(&mut self, at: OffsetDateTime) -> Record {
        let task = self.hex(32);
        let actor = self.role(
            "orders-api-task",
            &task,
            "198.51.100.71",
            "aws-sdk-java/2.35.6 md/io#sync md/http#Apache ua/2.1 os/Linux#5.10 lang/java#21.0.8",
        );
        match self.rng.u32(0..3) {
            0 => {
                let key = format!("orders/{}/{}.json", at.date(), self.uuid());
                let request = json!({
                    "bucketName": "example-orders-data", "key": key,
                    "Host": "example-orders-data.s3.eu-central-1.amazonaws.com",
                });
                let response = json!({ "x-amz-server-side-encryption": "aws:kms" });
                let mut record =
                    self.record(at, actor, Call::write("s3.amazonaws.com", "PutObject", request, response));
                record.management_event = false;
                record.event_category = "Data";
                record.additional_event_data = Some(json!({
                    "SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256",
                    "bytesTransferredIn": self.rng.u32(600..9_000), "AuthenticationMethod": "AuthHeader",
                    "bytesTransferredOut": 0,
                }));
                record.resources = Some(json!([
                    { "type": "AWS::S3::Object", "ARN": format!("arn:aws:s3:::example-orders-data/{key}") },
                    { "accountId": ACCOUNT, "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::example-orders-data" },
                ]));
                record
            }
            1 => {
                let request =
                    json!({ "encryptionContext": { "service": "orders" }, "encryptionAlgorithm": "SYMMETRIC_DEFAULT" });
                let mut record = self.record(at, actor, Call::read("kms.amazonaws.com", "Decrypt", request));
                record.resources = Some(json!([{ "accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key_arn() }]));
                record
            }
            _ => {
                let request = json!({ "secretId": "orders/database" });
                self.record(at, actor, Call::read("secretsmanager.amazonaws.com", "GetSecretValue", request))
            }
        }
    }

    /// AWS services assume the account's roles.
    fn service(&mut self, at: OffsetDateTime) -> Record {
        let roles = [
            ("ecs-tasks", "orders-api-task"),
            ("lambda", "thumbnailer"),
            ("ec2", "bastion"),
            ("events", "nightly-report"),
        ];
        let (service, role) = self.pick(&roles);
        let session = self.hex(32);
        let role_arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let request = json!({ "roleArn": role_arn, "roleSessionName": session, "durationSeconds": 3600 });
        let response = json!({
            "credentials": {
                "accessKeyId": "ASIAIOSFODNN7EXAMPLE", "sessionToken": "IQoJb3JpZ2luX2VjEXAMPLE",
                "expiration": english(at.saturating_add(Duration::hours(1))),
            },
            "assumedRoleUser": {
                "assumedRoleId": format!("AROA3XFRBF23EXAMPLE:{session}"),
                "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}"),
            },
        });
        let mut call = Call::write("sts.amazonaws.com", "AssumeRole", request, response);
        call.read_only = true;
        let mut record = self.record(at, service_actor(service), call);
        record.resources = Some(json!([{ "accountId": ACCOUNT, "type": "AWS::IAM::Role", "ARN": role_arn }]));
        record
    }

    /// The build pipeline deploys.
    fn pipeline(&mut self, at: OffsetDateTime) -> Record {
        let revision = self.rng.u32(410..420);
        let image = format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/orders-api:{}", self.hex(12));
        let calls = [
            ("ecr.amazonaws.com", "GetAuthorizationToken", true, json!({}), Value::Null),
            (
                "ecr.amazonaws.com",
                "BatchGetImage",
                true,
                json!({
                    "registryId": ACCOUNT, "repositoryName": "orders-api", "imageIds": [{ "imageTag": "latest" }],
                }),
                Value::Null,
            ),
            (
                "ecs.amazonaws.com",
                "DescribeServices",
                true,
                json!({ "cluster": "shop", "services": ["orders-api"] }),
                Value::Null,
            ),
            (
                "ecs.amazonaws.com",
                "RegisterTaskDefinition",
                false,
                json!({
                    "family": "orders-api", "containerDefinitions": [{ "name": "app", "image": image, "essential": true }],
                }),
                json!({ "taskDefinition": { "family": "orders-api", "revision": revision, "status": "ACTIVE" } }),
            ),
            (
                "ecs.amazonaws.com",
                "UpdateService",
                false,
                json!({
                    "cluster": "shop", "service": "orders-api", "taskDefinition": format!("orders-api:{revision}"),
                }),
                json!({ "service": { "serviceName": "orders-api", "status": "ACTIVE", "desiredCount": 3 } }),
            ),
            (
                "logs.amazonaws.com",
                "CreateLogStream",
                false,
                json!({
                    "logGroupName": "/ci/deploy", "logStreamName": format!("run-{}", self.rng.u32(9_000..9_999)),
                }),
                Value::Null,
            ),
        ];
        let (source, name, read_only, request, response) = self.pick(&calls);
        let actor = self.role(
            "ci-deploy",
            "GitHubActions",
            "198.51.100.23",
            "aws-cli/2.31.21 md/awscrt#0.28.1 ua/2.1 os/linux#6.11 md/command#ecs",
        );
        self.record(at, actor, Call { source, name, read_only, request, response })
    }

    /// People look around in the console.
    fn person(&mut self, at: OffsetDateTime) -> Record {
        let people =
            [("jonas.weber", "203.0.113.10"), ("amara.okafor", "203.0.113.11"), ("lea.martin", "203.0.113.12")];
        let (person, ip) = self.pick(&people);
        let calls = [
            ("cloudwatch.amazonaws.com", "DescribeAlarms", json!({ "maxRecords": 100 })),
            ("logs.amazonaws.com", "DescribeLogGroups", json!({ "limit": 50 })),
            ("s3.amazonaws.com", "ListBuckets", json!({ "Host": "s3.eu-central-1.amazonaws.com" })),
            ("ec2.amazonaws.com", "DescribeVpcs", json!({ "vpcSet": {}, "filterSet": {} })),
            ("iam.amazonaws.com", "GetAccountSummary", Value::Null),
            (
                "cost-optimization-hub.amazonaws.com",
                "ListEnrollmentStatuses",
                json!({ "includeOrganizationInfo": false }),
            ),
        ];
        let (source, name, request) = self.pick(&calls);
        let mut actor =
            self.role("AWSReservedSSO_ReadOnly_1a2b3c4d5e6f7890", &format!("{person}@example.com"), ip, BROWSER);
        actor.from_console = true;
        self.record(at, actor, Call::read(source, name, request))
    }

    /// A log delivery whose bucket policy was never completed: denied for months, no person behind it.
    fn service_denied(&mut self, at: OffsetDateTime) -> Record {
        let request = json!({
            "bucketName": "example-legacy-logs", "key": format!("vpc/{}.log.gz", self.hex(16)),
            "Host": "example-legacy-logs.s3.eu-central-1.amazonaws.com", "x-amz-acl": "bucket-owner-full-control",
        });
        let call = Call::write("s3.amazonaws.com", "PutObject", request, Value::Null);
        let mut record = self.record(at, service_actor("delivery.logs"), call);
        record.error_code = Some("AccessDenied");
        record.error_message = Some("Access Denied".to_owned());
        record.management_event = false;
        record.event_category = "Data";
        record.resources = Some(
            json!([{ "accountId": ACCOUNT, "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::example-legacy-logs" }]),
        );
        record
    }

    /// What happens to the account, in order.
    fn attack(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        let minute = |minute: i64, second: i64| Duration::seconds(minute * 60 + second);
        let start = self.start;
        let mut tell = |offset: Duration, record: &mut dyn FnMut(OffsetDateTime) -> Record| {
            records.push(record(start.saturating_add(offset)));
        };

        // A guessed password, the third time right; the user has no MFA device.
        for second in [11, 34, 58] {
            tell(minute(6, second), &mut |at| self.sign_in(at, false));
        }
        tell(minute(8, 2), &mut |at| self.sign_in(at, true));

        // Looking around: what is not allowed is denied.
        tell(minute(9, 15), &mut |at| {
            self.intruder(at, Call::read("sts.amazonaws.com", "GetCallerIdentity", Value::Null))
        });
        tell(minute(10, 40), &mut |at| {
            let request = json!({ "maxItems": 100 });
            let mut record = self.intruder(at, Call::read("organizations.amazonaws.com", "ListAccounts", request));
            record.error_code = Some("AccessDenied");
            record.error_message = Some(not_allowed("organizations:ListAccounts", "*"));
            record
        });
        tell(minute(11, 5), &mut |at| {
            let request = json!({ "instancesSet": { "items": [{ "imageId": "ami-0abcdef1234567890", "minCount": 1, "maxCount": 8 }] }, "instanceType": "p5.48xlarge" });
            let mut record = self.intruder(at, Call::write("ec2.amazonaws.com", "RunInstances", request, Value::Null));
            record.error_code = Some("Client.UnauthorizedOperation");
            record.error_message =
                Some(not_allowed("ec2:RunInstances", "arn:aws:ec2:eu-central-1:111122223333:instance/*"));
            record
        });

        // A way back in, and more rights.
        tell(minute(17, 20), &mut |at| {
            let response = json!({ "accessKey": {
                "userName": "svc-backup", "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "status": "Active", "createDate": english(at),
            }});
            self.intruder(
                at,
                Call::write("iam.amazonaws.com", "CreateAccessKey", json!({ "userName": "svc-backup" }), response),
            )
        });
        tell(minute(19, 3), &mut |at| {
            let request =
                json!({ "userName": "svc-backup", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess" });
            self.intruder(at, Call::write("iam.amazonaws.com", "AttachUserPolicy", request, Value::Null))
        });
        tell(minute(21, 47), &mut |at| {
            let policy = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] });
            let request =
                json!({ "userName": "mara.lindqvist", "policyName": "helpdesk", "policyDocument": policy.to_string() });
            self.intruder(at, Call::write("iam.amazonaws.com", "PutUserPolicy", request, Value::Null))
        });

        // Blinding the watchers.
        tell(minute(27, 30), &mut |at| {
            let request = json!({ "name": format!("arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/management-events") });
            self.stolen_key(at, Call::write("cloudtrail.amazonaws.com", "StopLogging", request, Value::Null))
        });
        tell(minute(28, 12), &mut |at| {
            let request = json!({ "configurationRecorderName": "default" });
            self.stolen_key(at, Call::write("config.amazonaws.com", "StopConfigurationRecorder", request, Value::Null))
        });

        // Opening doors.
        tell(minute(35, 9), &mut |at| {
            let request = json!({ "groupId": "sg-0123456789abcdef0", "ipPermissions": { "items": [{
                "ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "groups": {}, "ipRanges": { "items": [{ "cidrIp": "0.0.0.0/0" }] },
                "ipv6Ranges": {}, "prefixListIds": {},
            }]}});
            let response = json!({ "requestId": self.uuid(), "_return": true, "securityGroupRuleSet": { "items": [{
                "groupOwnerId": ACCOUNT, "groupId": "sg-0123456789abcdef0", "securityGroupRuleId": "sgr-0fedcba9876543210",
                "isEgress": false, "ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": "0.0.0.0/0",
            }]}});
            self.stolen_key(at, Call::write("ec2.amazonaws.com", "AuthorizeSecurityGroupIngress", request, response))
        });
        tell(minute(41, 26), &mut |at| {
            let statement = json!({ "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::example-orders-data/*" });
            let request = json!({
                "bucketName": "example-orders-data", "policy": "", "Host": "example-orders-data.s3.eu-central-1.amazonaws.com",
                "bucketPolicy": { "Version": "2012-10-17", "Statement": [statement] },
            });
            let mut record =
                self.stolen_key(at, Call::write("s3.amazonaws.com", "PutBucketPolicy", request, Value::Null));
            record.resources = Some(
                json!([{ "accountId": ACCOUNT, "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::example-orders-data" }]),
            );
            record
        });

        // Leaving scorched earth.
        tell(minute(52, 40), &mut |at| {
            let request = json!({ "keyId": key_arn(), "pendingWindowInDays": 7 });
            let response = json!({
                "keyId": key_arn(), "keyState": "PendingDeletion", "pendingWindowInDays": 7,
                "deletionDate": english(at.saturating_add(Duration::days(7))),
            });
            let mut record =
                self.stolen_key(at, Call::write("kms.amazonaws.com", "ScheduleKeyDeletion", request, response));
            record.resources = Some(json!([{ "accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key_arn() }]));
            record
        });
        tell(minute(56, 18), &mut |at| {
            let request = json!({ "roleName": "break-glass" });
            let mut record = self.stolen_key(at, Call::write("iam.amazonaws.com", "DeleteRole", request, Value::Null));
            record.error_code = Some("AccessDenied");
            record.error_message = Some(format!(
                "User: arn:aws:iam::{ACCOUNT}:user/svc-backup is not authorized to perform: iam:DeleteRole on resource: \
                 role break-glass with an explicit deny in a service control policy"
            ));
            record
        });
        records
    }

    fn sign_in(&mut self, at: OffsetDateTime, succeeds: bool) -> Record {
        let mut identity = json!({
            "type": "IAMUser", "principalId": "AIDACKCEVSQ6C2EXAMPLE", "accountId": ACCOUNT, "userName": "mara.lindqvist",
        });
        if let (true, Value::Object(fields)) = (succeeds, &mut identity) {
            fields.insert("arn".to_owned(), json!(format!("arn:aws:iam::{ACCOUNT}:user/mara.lindqvist")));
        } else if let Value::Object(fields) = &mut identity {
            fields.insert("accessKeyId".to_owned(), json!(""));
        }
        let actor = Actor { identity, ip: INTRUDER.to_owned(), agent: BROWSER.to_owned(), from_console: false };
        let outcome = if succeeds { "Success" } else { "Failure" };
        let call = Call::write("signin.amazonaws.com", "ConsoleLogin", Value::Null, json!({ "ConsoleLogin": outcome }));
        let mut record = self.record(at, actor, call);
        record.event_type = "AwsConsoleSignIn";
        record.error_message = (!succeeds).then(|| "Failed authentication".to_owned());
        record.additional_event_data = Some(json!({
            "LoginTo": "https://console.aws.amazon.com/console/home?region=eu-central-1", "MobileVersion": "No", "MFAUsed": "No",
        }));
        record
    }

    /// The user whose password was guessed, in the console.
    fn intruder(&mut self, at: OffsetDateTime, call: Call<'_>) -> Record {
        let identity = json!({
            "type": "IAMUser", "principalId": "AIDACKCEVSQ6C2EXAMPLE", "arn": format!("arn:aws:iam::{ACCOUNT}:user/mara.lindqvist"),
            "accountId": ACCOUNT, "accessKeyId": "ASIAI44QH8DHBEXAMPLE", "userName": "mara.lindqvist",
            "sessionContext": { "attributes": {
                "creationDate": second(self.start.saturating_add(Duration::seconds(482))), "mfaAuthenticated": "false",
            }},
        });
        let actor = Actor { identity, ip: INTRUDER.to_owned(), agent: BROWSER.to_owned(), from_console: true };
        self.record(at, actor, call)
    }

    /// The access key that was made on the way.
    fn stolen_key(&mut self, at: OffsetDateTime, call: Call<'_>) -> Record {
        let identity = json!({
            "type": "IAMUser", "principalId": "AIDAIOSFODNN7EXAMPLE", "arn": format!("arn:aws:iam::{ACCOUNT}:user/svc-backup"),
            "accountId": ACCOUNT, "accessKeyId": "AKIAIOSFODNN7EXAMPLE", "userName": "svc-backup",
        });
        let agent = "aws-cli/2.28.0 md/awscrt#0.27.4 ua/2.1 os/linux#6.12-amd64 md/distrib#kali lang/python#3.13.5";
        let actor = Actor { identity, ip: "203.0.113.201".to_owned(), agent: agent.to_owned(), from_console: false };
        self.record(at, actor, call)
    }

    fn role(&mut self, role: &str, session: &str, ip: &str, agent: &str) -> Actor {
        let created = self.start.saturating_sub(Duration::minutes(self.rng.i64(1..50)));
        let identity = json!({
            "type": "AssumedRole",
            "principalId": format!("AROA3XFRBF23EXAMPLE:{session}"),
            "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}"),
            "accountId": ACCOUNT,
            "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "sessionContext": {
                "sessionIssuer": {
                    "type": "Role", "principalId": "AROA3XFRBF23EXAMPLE", "arn": format!("arn:aws:iam::{ACCOUNT}:role/{role}"),
                    "accountId": ACCOUNT, "userName": role,
                },
                "attributes": { "creationDate": second(created), "mfaAuthenticated": "false" },
            },
        });
        Actor { identity, ip: ip.to_owned(), agent: agent.to_owned(), from_console: false }
    }

    /// A trail's files: one for each region and window of so many minutes that has records.
    fn deliver(&mut self, records: &[Record], prefix: &str, minutes: i64) -> Vec<LogFile> {
        let window = Duration::minutes(minutes);
        let mut files = Vec::new();
        for region in [REGION, GLOBAL_REGION] {
            let mut from = self.start;
            while records.iter().any(|record| record.at >= from) {
                let until = from.saturating_add(window);
                let within = |record: &&Record| record.aws_region == region && record.at >= from && record.at < until;
                let records: Vec<Record> = records.iter().filter(within).cloned().collect();
                let delivered = until.saturating_add(Duration::seconds(self.rng.i64(60..300)));
                if !records.is_empty() {
                    files.push(LogFile { key: self.key(prefix, region, delivered), records, cut: false, delivered });
                }
                from = until;
            }
        }
        files
    }

    fn key(&mut self, prefix: &str, region: &str, delivered: OffsetDateTime) -> String {
        const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]/[month]/[day]");
        const MINUTE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute]Z");
        let (day, minute) = (format(delivered, DAY), format(delivered, MINUTE));
        let unique: String = (0..16).map(|_| self.rng.alphanumeric()).collect();
        format!(
            "{prefix}AWSLogs/{ACCOUNT}/CloudTrail/{region}/{day}/{ACCOUNT}_CloudTrail_{region}_{minute}_{unique}.json.gz"
        )
    }

    /// The digest of the first trail's hour.
    fn digest(&mut self, files: &[LogFile]) -> std::io::Result<(String, Vec<u8>)> {
        const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]/[month]/[day]");
        const SECOND: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
        let (_, _, trail) = TRAILS[0];
        let end = self.start.saturating_add(Duration::hours(1));
        let logs: Vec<Value> = files
            .iter()
            .filter(|file| file.key.starts_with("AWSLogs/") && file.key.contains(REGION))
            .map(|file| {
                json!({
                    "s3Bucket": super::BUCKET, "s3Object": file.key, "hashValue": self.hex(64), "hashAlgorithm": "SHA-256",
                    "newestEventTime": file.records.last().map(|record| &record.event_time),
                    "oldestEventTime": file.records.first().map(|record| &record.event_time),
                })
            })
            .collect();
        let folder = format!("AWSLogs/{ACCOUNT}/CloudTrail-Digest/{REGION}/{}", format(end, DAY));
        let key =
            format!("{folder}/{ACCOUNT}_CloudTrail-Digest_{REGION}_{trail}_{REGION}_{}.json.gz", format(end, SECOND));
        let digest = json!({
            "awsAccountId": ACCOUNT,
            "digestStartTime": second(self.start),
            "digestEndTime": second(end),
            "digestS3Bucket": super::BUCKET,
            "digestS3Object": key,
            "digestPublicKeyFingerprint": self.hex(32),
            "digestSignatureAlgorithm": "SHA256withRSA",
            "newestEventTime": second(end),
            "oldestEventTime": second(self.start),
            "previousDigestS3Bucket": null,
            "previousDigestS3Object": null,
            "previousDigestHashValue": null,
            "previousDigestHashAlgorithm": null,
            "previousDigestSignature": null,
            "logFiles": logs,
        });
        Ok((key, gzip(&digest.to_string())?))
    }

    fn pick<T: Clone + Default>(&mut self, from: &[T]) -> T {
        self.rng.choice(from).cloned().unwrap_or_default()
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| self.rng.digit(16)).collect()
    }

    /// A UUID of version 4.
    fn uuid(&mut self) -> String {
        let variant = self.rng.choice(['8', '9', 'a', 'b']).unwrap_or('8');
        format!("{}-{}-4{}-{variant}{}-{}", self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12))
    }
}

const INTRUDER: &str = "203.0.113.66";
const BROWSER: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";

fn service_actor(service: &str) -> Actor {
    let host = format!("{service}.amazonaws.com");
    let identity = json!({ "type": "AWSService", "invokedBy": host });
    Actor { identity, ip: host.clone(), agent: host, from_console: false }
}

fn not_allowed(action: &str, resource: &str) -> String {
    format!(
        "User: arn:aws:iam::{ACCOUNT}:user/mara.lindqvist is not authorized to perform: {action} on resource: {resource} \
         because no identity-based policy allows the {action} action"
    )
}

fn key_arn() -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab")
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

fn second(at: OffsetDateTime) -> String {
    const SECOND: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    format(at, SECOND)
}

/// `Mar 1, 2026, 10:00:00 AM`, as responses are recorded.
fn english(at: OffsetDateTime) -> String {
    const ENGLISH: &[BorrowedFormatItem<'_>] = format_description!(
        "[month repr:short] [day padding:none], [year], [hour repr:12 padding:none]:[minute]:[second] [period]"
    );
    format(at, ENGLISH)
}

fn format(at: OffsetDateTime, description: &[BorrowedFormatItem<'_>]) -> String {
    at.to_offset(UtcOffset::UTC).format(description).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::Read as _;
    use std::sync::Arc;

    use time::macros::datetime;

    use super::*;
    use crate::notification::{Ignored, LogKind, classify};
    use crate::rules::{DEFAULT_RULES, Matcher, RuleSet, ids};

    fn story() -> Story {
        Story::new(7, datetime!(2026-03-01 00:20 UTC)).unwrap()
    }

    fn records(story: &Story) -> Vec<&Record> {
        story.files.iter().flat_map(|file| &file.records).collect()
    }

    #[test]
    fn every_record_has_the_fields_of_a_real_one() {
        let story = story();
        for record in records(&story) {
            let value = serde_json::to_value(record).unwrap();
            for field in [
                "eventVersion",
                "userIdentity",
                "eventTime",
                "eventSource",
                "eventName",
                "awsRegion",
                "sourceIPAddress",
                "userAgent",
                "requestParameters",
                "responseElements",
                "requestID",
                "eventID",
                "readOnly",
                "eventType",
                "managementEvent",
                "recipientAccountId",
                "eventCategory",
            ] {
                assert!(value.get(field).is_some(), "{field} is missing in {value}");
            }
            assert_eq!(value["eventTime"].as_str().unwrap().len(), "2026-03-01T00:20:00Z".len());
            let identity = &value["userIdentity"];
            match identity["type"].as_str().unwrap() {
                "AssumedRole" => assert!(identity["sessionContext"]["sessionIssuer"]["userName"].is_string()),
                "IAMUser" => assert!(identity["userName"].is_string()),
                other => assert_eq!((other, identity["invokedBy"].is_string()), ("AWSService", true)),
            }
            assert_eq!(value.get("tlsDetails").is_none(), identity["type"] == "AWSService");
        }
    }

    #[test]
    fn every_event_is_delivered_twice_in_different_files_of_different_grouping() {
        let story = story();
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for file in &story.files {
            for record in &file.records {
                files.entry(&record.event_id).or_default().push(&file.key);
            }
        }
        assert!(files.len() > NOISE);
        assert!(
            files
                .values()
                .all(|keys| { keys.len() == 2 && keys.iter().filter(|key| key.starts_with("AWSLogs/")).count() == 1 })
        );
        let groups: Vec<BTreeSet<&str>> =
            story.files.iter().map(|file| file.records.iter().map(|it| it.event_id.as_str()).collect()).collect();
        let distinct: BTreeSet<_> = groups.iter().collect();
        assert_eq!(distinct.len(), groups.len());
    }

    #[test]
    fn the_files_are_recognised_by_their_names_and_the_digest_is_not_one() {
        let story = story();
        assert!((20..=40).contains(&story.files.len()), "{}", story.files.len());
        assert!(story.files.iter().all(|file| classify(&file.key) == Ok(LogKind::CloudTrail)));
        assert_eq!(classify(&story.digest.0), Err(Ignored::Digest));
        assert!(story.files.iter().all(|file| file.delivered <= datetime!(2026-03-01 00:20 UTC)));
    }

    #[test]
    fn one_file_is_cut_off_and_the_others_are_whole() {
        let story = story();
        let whole = |file: &LogFile| {
            let mut text = String::new();
            flate2::read::GzDecoder::new(file.body().unwrap().as_slice()).read_to_string(&mut text).is_ok()
        };
        let cut: Vec<_> = story.files.iter().filter(|file| !whole(file)).collect();
        assert_eq!(cut.len(), 1);
        assert!(cut[0].cut);
    }

    #[test]
    fn the_default_rules_see_the_attack_and_none_of_the_noise() {
        let mut matcher = Matcher::new(Arc::new(RuleSet::parse(DEFAULT_RULES).unwrap()));
        let story = story();
        let mut seen = BTreeMap::new();
        for record in records(&story) {
            let rules = matcher.matches(&serde_json::to_vec(record).unwrap());
            if !rules.is_empty() {
                let told = format!("{} {}", record.event_name, ids(&rules).into_iter().collect::<Vec<_>>().join(" "));
                seen.insert((record.event_time.clone(), record.event_id.clone()), told);
            }
        }
        let told: Vec<_> = seen.into_values().collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        ConsoleLogin console-login-failures console-password-guessed-right console-passwords-guessed
        ConsoleLogin console-login-failures console-password-guessed-right console-passwords-guessed
        ConsoleLogin console-login-failures console-password-guessed-right console-passwords-guessed
        ConsoleLogin console-password-guessed-right console-signin-without-mfa
        ListAccounts many-calls-denied unauthorized-api-calls
        RunInstances gpu-instances-started many-calls-denied unauthorized-api-calls
        CreateAccessKey access-key-created iam-access-key-for-another-user
        AttachUserPolicy iam-admin-policy-attached iam-policy-changes
        PutUserPolicy iam-admin-policy-written iam-policy-changes
        StopLogging attack-tool-user-agent cloudtrail-stopped
        StopConfigurationRecorder attack-tool-user-agent aws-config-changes
        AuthorizeSecurityGroupIngress attack-tool-user-agent security-group-changes security-group-opens-admin-port
        PutBucketPolicy attack-tool-user-agent s3-bucket-made-public s3-bucket-policy-changes
        ScheduleKeyDeletion attack-tool-user-agent kms-key-deletion
        DeleteRole attack-tool-user-agent many-calls-denied unauthorized-api-calls
        ");
    }

    #[test]
    fn a_seed_and_a_time_make_the_same_story_again() {
        let bodies = |story: Story| -> Vec<_> {
            story.files.iter().map(|file| (file.key.clone(), file.body().unwrap())).collect()
        };
        assert_eq!(bodies(story()), bodies(story()));
    }
}
