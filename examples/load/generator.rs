//! CloudTrail records that look like real ones, from a seed.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::plan::Body;

/// Source, event, a template of its request parameters in which `#` is a random hexadecimal digit, and whether
/// it only reads.
const EVENTS: [(&str, &str, &str, bool); 16] = [
    (
        "ec2",
        "DescribeInstances",
        r#"{"maxResults":1000,"instancesSet":{},"filterSet":{"items":[{"name":"instance-state-name","valueSet":{"items":[{"value":"running"}]}}]}}"#,
        true,
    ),
    (
        "ec2",
        "DescribeNetworkInterfaces",
        r#"{"networkInterfaceIdSet":{"items":[{"networkInterfaceId":"eni-0################"}]},"filterSet":{}}"#,
        true,
    ),
    ("ec2", "DescribeVolumes", r#"{"maxResults":500,"volumeSet":{},"filterSet":{}}"#, true),
    (
        "sts",
        "AssumeRole",
        r#"{"roleArn":"arn:aws:iam::111122223333:role/application-worker","roleSessionName":"worker-########","durationSeconds":3600,"tags":[]}"#,
        true,
    ),
    (
        "s3",
        "GetBucketAcl",
        r#"{"bucketName":"example-data-########","Host":"example-data-########.s3.eu-central-1.amazonaws.com","acl":""}"#,
        true,
    ),
    ("s3", "ListBuckets", r#"{"Host":"s3.eu-central-1.amazonaws.com"}"#, true),
    (
        "kms",
        "Decrypt",
        r#"{"encryptionContext":{"aws:s3:arn":"arn:aws:s3:::example-data-########"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#,
        true,
    ),
    (
        "kms",
        "GenerateDataKey",
        r#"{"keyId":"arn:aws:kms:eu-central-1:111122223333:key/########-####-####-####-############","keySpec":"AES_256"}"#,
        true,
    ),
    (
        "logs",
        "CreateLogStream",
        r#"{"logGroupName":"/aws/lambda/example-worker","logStreamName":"2026/05/01/[$LATEST]################################"}"#,
        false,
    ),
    ("dynamodb", "DescribeTable", r#"{"tableName":"example-orders"}"#, true),
    (
        "lambda",
        "GetFunction20150331v2",
        r#"{"functionName":"arn:aws:lambda:eu-central-1:111122223333:function:example-worker"}"#,
        true,
    ),
    (
        "ssm",
        "UpdateInstanceInformation",
        r#"{"instanceId":"i-0################","agentVersion":"3.3.1611.0","agentStatus":"Active","platformType":"Linux","platformName":"Amazon Linux","platformVersion":"2023","iPAddress":"10.0.###","computerName":"ip-10-0-###.eu-central-1.compute.internal"}"#,
        false,
    ),
    (
        "autoscaling",
        "DescribeAutoScalingGroups",
        r#"{"maxRecords":100,"autoScalingGroupNames":["example-workers"]}"#,
        true,
    ),
    (
        "elasticloadbalancing",
        "DescribeTargetHealth",
        r#"{"targetGroupArn":"arn:aws:elasticloadbalancing:eu-central-1:111122223333:targetgroup/example/################"}"#,
        true,
    ),
    ("monitoring", "DescribeAlarms", r#"{"alarmNames":["example-alarm-####"],"maxRecords":100}"#, true),
    (
        "sqs",
        "GetQueueAttributes",
        r#"{"queueUrl":"https://sqs.eu-central-1.amazonaws.com/111122223333/example-jobs","attributeNames":["All"]}"#,
        true,
    ),
];

/// What the default rules alert on, once for each event.
const MATCHING: [(&str, &str, &str, bool); 2] = [
    (
        "cloudtrail",
        "StopLogging",
        r#"{"name":"arn:aws:cloudtrail:eu-central-1:111122223333:trail/example-####"}"#,
        false,
    ),
    (
        "cloudtrail",
        "DeleteTrail",
        r#"{"name":"arn:aws:cloudtrail:eu-central-1:111122223333:trail/example-####"}"#,
        false,
    ),
];

const AGENTS: [&str; 5] = [
    "aws-sdk-java/2.25.60 Linux/6.1.0 OpenJDK_64-Bit_Server_VM/21.0.3+9-LTS Java/21.0.3 vendor/Amazon.com_Inc. io/sync http/Apache cfg/retry-mode/legacy",
    "Boto3/1.34.117 md/Botocore#1.34.117 ua/2.0 os/linux#6.1.0 md/arch#x86_64 lang/python#3.12.3 md/pyimpl#CPython exec-env/AWS_Lambda_python3.12 cfg/retry-mode#legacy Botocore/1.34.117",
    "aws-sdk-go-v2/1.27.1 os/linux lang/go#1.22.3 md/GOOS#linux md/GOARCH#amd64 api/ec2#1.162.0",
    "APN/1.0 HashiCorp/1.0 Terraform/1.8.4 (+https://www.terraform.io) terraform-provider-aws/5.52.0 aws-sdk-go-v2/1.27.1 os/linux lang/go#1.22.3",
    "autoscaling.amazonaws.com",
];

pub struct Generator {
    random: fastrand::Rng,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// A log object of so many records, of which this share matches.
    pub fn body(&mut self, records: u32, share: f64) -> anyhow::Result<Body> {
        let matching: Vec<bool> = (0..records).map(|_| share > 0.0 && self.random.f64() < share).collect();
        self.with(&matching)
    }

    /// A log object with one record, which matches.
    pub fn one_match(&mut self) -> anyhow::Result<Body> {
        self.with(&[true])
    }

    fn with(&mut self, matching: &[bool]) -> anyhow::Result<Body> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
        let mut record = String::from("{\"Records\":[");
        let mut decompressed = 0;
        let (mut records, mut matches) = (0, 0);
        for matches_rule in matching {
            if records > 0 {
                record.push(',');
            }
            self.record(&mut record, *matches_rule)?;
            gzip.write_all(record.as_bytes())?;
            decompressed += u64::try_from(record.len())?;
            record.clear();
            records += 1;
            matches += u64::from(*matches_rule);
        }
        gzip.write_all(b"]}")?;
        Ok(Body { gzip: Bytes::from(gzip.finish()?), records, decompressed: decompressed + 2, matches })
    }

    fn record(&mut self, out: &mut String, matching: bool) -> std::fmt::Result {
        let random = &mut self.random;
        let chosen = if matching {
            random.choice(MATCHING)
        } else {
            // Some calls are far more frequent than others.
            EVENTS.get(random.usize(..EVENTS.len()).min(random.usize(..EVENTS.len()))).copied()
        };
        let (source, name, parameters, reads) = chosen.unwrap_or(MATCHING[0]);
        let second = random.u32(..86_400);
        let time = format!("2026-05-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
        out.push_str("{\"eventVersion\":\"1.11\",\"userIdentity\":");
        if random.u8(..10) == 0 {
            write!(out, "{{\"type\":\"AWSService\",\"invokedBy\":\"{source}.amazonaws.com\"}}")?;
        } else {
            let role = random
                .choice(["application-worker", "deployment", "monitoring-agent", "node-group-main"])
                .unwrap_or("");
            let mut text = String::new();
            write!(
                text,
                "{{\"type\":\"AssumedRole\",\"principalId\":\"AROAEXAMPLE{role}:i-0%\",\
                 \"arn\":\"arn:aws:sts::111122223333:assumed-role/{role}/i-0%\",\"accountId\":\"111122223333\",\
                 \"accessKeyId\":\"ASIAEXAMPLE########\",\"sessionContext\":{{\"sessionIssuer\":{{\"type\":\"Role\",\
                 \"principalId\":\"AROAEXAMPLE{role}\",\"arn\":\"arn:aws:iam::111122223333:role/{role}\",\
                 \"accountId\":\"111122223333\",\"userName\":\"{role}\"}},\"attributes\":{{\"creationDate\":\
                 \"{time}\",\"mfaAuthenticated\":\"false\"}},\"ec2RoleDelivery\":\"2.0\"}}}}"
            )?;
            let instance = format!("{:016x}", random.u16(..) % 512 + 0x1000);
            fill(random, out, &text.replace('%', &instance));
        }
        write!(
            out,
            ",\"eventTime\":\"{time}\",\"eventSource\":\"{source}.amazonaws.com\",\"eventName\":\"{name}\",\
             \"awsRegion\":\"eu-central-1\",\"sourceIPAddress\":\"10.{}.{}.{}\",\"userAgent\":\"{}\",\"requestParameters\":",
            random.u8(..2),
            random.u8(..2),
            random.u8(..100),
            random.choice(AGENTS).unwrap_or("")
        )?;
        fill(random, out, parameters);
        out.push_str(",\"responseElements\":null,\"requestID\":\"");
        fill(random, out, "########-####-####-####-############");
        out.push_str("\",\"eventID\":\"");
        fill(random, out, "########-####-####-####-############");
        write!(
            out,
            "\",\"readOnly\":{reads},\"eventType\":\"AwsApiCall\",\"managementEvent\":true,\
             \"recipientAccountId\":\"111122223333\",\"eventCategory\":\"Management\",\"tlsDetails\":{{\
             \"tlsVersion\":\"TLSv1.3\",\"cipherSuite\":\"TLS_AES_128_GCM_SHA256\",\"clientProvidedHostHeader\":\
             \"{source}.eu-central-1.amazonaws.com\"}}}}"
        )
    }
}

/// Puts a random hexadecimal digit in place of each `#`.
fn fill(random: &mut fastrand::Rng, out: &mut String, template: &str) {
    out.extend(template.chars().map(|char| match char {
        '#' => char::from_digit(random.u32(..16), 16).unwrap_or('0'),
        other => other,
    }));
}
