//! CloudTrail records and log objects that look like real ones, from a seed.
//!
//! Sizes, shares and spellings follow what public sets of real logs show: 1.4 KB a record in the middle and some of up to 100 KB,
//! `responseElements` null in 85 of 100, a few calls far more frequent than the others, names in the order in which
//! CloudTrail writes them, and about 10 to 1 when compressed. All names, addresses and accounts are made up.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Source, event, and the request's parameters, in which `~` is a random hexadecimal digit; by falling frequency.
const CALLS: [(&str, &str, &str); 24] = [
    (
        "kms",
        "Decrypt",
        r#"{"encryptionContext":{"aws:s3:arn":"arn:aws:s3:::example-data-~~~~/part-~~~~~~~~.parquet"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}"#,
    ),
    (
        "sts",
        "AssumeRole",
        r#"{"roleArn":"arn:aws:iam::111122223333:role/application-worker","roleSessionName":"worker-~~~~~~~~","durationSeconds":3600}"#,
    ),
    (
        "ec2",
        "DescribeInstances",
        r#"{"maxResults":1000,"instancesSet":{},"filterSet":{"items":[{"name":"instance-state-name","valueSet":{"items":[{"value":"running"}]}}]}}"#,
    ),
    (
        "s3",
        "GetBucketAcl",
        r#"{"bucketName":"example-data-~~~~","Host":"example-data-~~~~.s3.eu-central-1.amazonaws.com","acl":""}"#,
    ),
    (
        "ec2",
        "DescribeNetworkInterfaces",
        r#"{"networkInterfaceIdSet":{"items":[{"networkInterfaceId":"eni-0~~~~~~~~~~~~~~~~"}]},"filterSet":{}}"#,
    ),
    (
        "kms",
        "GenerateDataKey",
        r#"{"keyId":"arn:aws:kms:eu-central-1:111122223333:key/~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~","keySpec":"AES_256"}"#,
    ),
    (
        "ssm",
        "UpdateInstanceInformation",
        r#"{"instanceId":"i-0~~~~~~~~~~~~~~~~","agentVersion":"3.3.1611.0","agentStatus":"Active","platformType":"Linux","platformName":"Amazon Linux","platformVersion":"2023","iPAddress":"10.0.3.17","computerName":"ip-10-0-3-17.eu-central-1.compute.internal","agentName":"amazon-ssm-agent"}"#,
    ),
    (
        "logs",
        "CreateLogStream",
        r#"{"logGroupName":"/aws/lambda/example-worker","logStreamName":"2026/05/01/[$LATEST]~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"}"#,
    ),
    ("autoscaling", "DescribeAutoScalingGroups", r#"{"maxRecords":100,"autoScalingGroupNames":["example-workers"]}"#),
    ("dynamodb", "DescribeTable", r#"{"tableName":"example-orders"}"#),
    ("s3", "ListBuckets", r#"{"Host":"s3.eu-central-1.amazonaws.com"}"#),
    (
        "elasticloadbalancing",
        "DescribeTargetHealth",
        r#"{"targetGroupArn":"arn:aws:elasticloadbalancing:eu-central-1:111122223333:targetgroup/example/~~~~~~~~~~~~~~~~"}"#,
    ),
    ("ec2", "DescribeVolumes", r#"{"maxResults":500,"volumeSet":{},"filterSet":{}}"#),
    ("monitoring", "DescribeAlarms", r#"{"alarmNames":["example-alarm-~~~~"],"maxRecords":100}"#),
    (
        "lambda",
        "GetFunction20150331v2",
        r#"{"functionName":"arn:aws:lambda:eu-central-1:111122223333:function:example-worker"}"#,
    ),
    (
        "sqs",
        "GetQueueAttributes",
        r#"{"queueUrl":"https://sqs.eu-central-1.amazonaws.com/111122223333/example-jobs","attributeNames":["All"]}"#,
    ),
    ("iam", "GetRole", r#"{"roleName":"application-worker"}"#),
    (
        "ecs",
        "DescribeTasks",
        r#"{"cluster":"example","tasks":["arn:aws:ecs:eu-central-1:111122223333:task/example/~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"]}"#,
    ),
    ("rds", "DescribeDBInstances", r#"{"dBInstanceIdentifier":"example-orders","maxRecords":100}"#),
    (
        "ec2",
        "RunInstances",
        r#"{"instancesSet":{"items":[{"imageId":"ami-0~~~~~~~~~~~~~~~~","minCount":1,"maxCount":1}]},"userData":"<sensitiveDataRemoved>","instanceType":"m7g.large","blockDeviceMapping":{},"monitoring":{"enabled":false},"disableApiTermination":false,"clientToken":"~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~","tagSpecificationSet":{"items":[{"resourceType":"instance","tags":[{"key":"Name","value":"example \"worker\""}]}]}}"#,
    ),
    (
        "s3",
        "PutObject",
        r#"{"bucketName":"example-data-~~~~","Host":"example-data-~~~~.s3.eu-central-1.amazonaws.com","key":"logs/year=2026/month=05/part-~~~~~~~~.json","x-amz-server-side-encryption":"aws:kms"}"#,
    ),
    (
        "secretsmanager",
        "GetSecretValue",
        r#"{"secretId":"arn:aws:secretsmanager:eu-central-1:111122223333:secret:example/database-~~~~~~"}"#,
    ),
    ("cloudformation", "DescribeStackEvents", r#"{"stackName":"example-network"}"#),
    (
        "ec2",
        "CreateTags",
        r#"{"resourcesSet":{"items":[{"resourceId":"i-0~~~~~~~~~~~~~~~~"}]},"tagSet":{"items":[{"key":"Owner","value":"platform"},{"key":"Note","value":"created by \u003cpipeline\u003e"}]}}"#,
    ),
];

/// Calls that the default rules tell of.
const MATCHING: [(&str, &str, &str); 3] = [
    ("cloudtrail", "StopLogging", r#"{"name":"arn:aws:cloudtrail:eu-central-1:111122223333:trail/example-~~~~"}"#),
    ("cloudtrail", "DeleteTrail", r#"{"name":"arn:aws:cloudtrail:eu-central-1:111122223333:trail/example-~~~~"}"#),
    ("iam", "CreateAccessKey", r#"{"userName":"example-user-~~~~"}"#),
];

const AGENTS: [&str; 6] = [
    "aws-sdk-java/2.25.60 Linux/6.1.0 OpenJDK_64-Bit_Server_VM/21.0.3+9-LTS Java/21.0.3 vendor/Amazon.com_Inc. io/sync http/Apache cfg/retry-mode/legacy",
    "Boto3/1.34.117 md/Botocore#1.34.117 ua/2.0 os/linux#6.1.0 md/arch#x86_64 lang/python#3.12.3 md/pyimpl#CPython exec-env/AWS_Lambda_python3.12 cfg/retry-mode#legacy Botocore/1.34.117",
    "aws-sdk-go-v2/1.27.1 os/linux lang/go#1.22.3 md/GOOS#linux md/GOARCH#amd64 api/ec2#1.162.0",
    "APN/1.0 HashiCorp/1.0 Terraform/1.8.4 (+https://www.terraform.io) terraform-provider-aws/5.52.0 aws-sdk-go-v2/1.27.1 os/linux lang/go#1.22.3",
    "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.488 Linux/5.10 OpenJDK_64-Bit_Server_VM/25.372-b08 java/1.8.0_372 vendor/Oracle_Corporation cfg/retry-mode/standard]",
    "autoscaling.amazonaws.com",
];

const ROLES: [&str; 5] = [
    "application-worker",
    "deployment-pipeline",
    "monitoring-agent",
    "AWSServiceRoleForAutoScaling",
    "node-group-main",
];

/// A log object and what is in it.
pub struct Object {
    pub gzip: Vec<u8>,
    pub records: u32,
    /// Bytes of the document when decompressed.
    pub decompressed: usize,
    /// Records that the default rules tell of.
    pub matching: u32,
}

pub struct Generator {
    random: fastrand::Rng,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// A log object of so many records, of which this share is told of.
    pub fn object(&mut self, records: u32, share: f64) -> Object {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
        let mut text = String::from("{\"Records\":[");
        let (mut decompressed, mut matching) = (0, 0);
        for index in 0..records {
            if index > 0 {
                text.push(',');
            }
            let tells = share > 0.0 && self.random.f64() < share;
            self.record(&mut text, tells);
            matching += u32::from(tells);
            decompressed += text.len();
            gzip.write_all(text.as_bytes()).expect("a vector takes all");
            text.clear();
        }
        gzip.write_all(if records == 0 { text.as_bytes() } else { b"" }).expect("a vector takes all");
        gzip.write_all(b"]}").expect("a vector takes all");
        decompressed += text.len() + 2;
        Object { gzip: gzip.finish().expect("a vector takes all"), records, decompressed, matching }
    }

    /// The document of [`Self::object`], not compressed.
    pub fn document(&mut self, records: u32, share: f64) -> String {
        let mut text = String::from("{\"Records\":[");
        for index in 0..records {
            if index > 0 {
                text.push(',');
            }
            let tells = share > 0.0 && self.random.f64() < share;
            self.record(&mut text, tells);
        }
        text.push_str("]}");
        text
    }

    /// One record, behind what is in `out`.
    pub fn record(&mut self, out: &mut String, tells: bool) {
        let random = &mut self.random;
        let call = if tells {
            random.choice(MATCHING)
        } else {
            let places = (0..3).map(|_| random.usize(..CALLS.len()));
            places.min().and_then(|place| CALLS.get(place)).copied()
        };
        let (source, name, parameters) = call.unwrap_or(MATCHING[0]);
        let second = random.u32(..86_400);
        let time = format!("2026-05-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
        let denied = !tells && random.u8(..50) == 0;
        out.push_str("{\"eventVersion\":\"1.11\",\"userIdentity\":");
        self.identity(out, source, &time);
        let random = &mut self.random;
        let agent = random.choice(AGENTS).unwrap_or_default();
        let address = format!("10.{}.{}.{}", random.u8(..2), random.u8(..2), random.u8(..100));
        write(
            out,
            format_args!(
                ",\"eventTime\":\"{time}\",\"eventSource\":\"{source}.amazonaws.com\",\"eventName\":\"{name}\",\"awsRegion\":\"eu-central-1\",\
             \"sourceIPAddress\":\"{address}\",\"userAgent\":\"{agent}\","
            ),
        );
        if denied {
            // A missing object is no denial: an error that the default rules do not tell of.
            out.push_str("\"errorCode\":\"NoSuchKey\",\"errorMessage\":\"The specified key does not exist.\",");
        }
        out.push_str("\"requestParameters\":");
        self.fill(out, parameters);
        out.push_str(",\"responseElements\":");
        match self.random.u8(..100) {
            0..85 => out.push_str("null"),
            85..99 => self.fill(out, r#"{"requestId":"~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~","_return":true,"item":{"state":"active","createTime":1777627245000,"arn":"arn:aws:ec2:eu-central-1:111122223333:instance/i-0~~~~~~~~~~~~~~~~","tags":[{"key":"aws:autoscaling:groupName","value":"example-workers"}]}}"#),
            _ => self.many_items(out),
        }
        out.push_str(",\"requestID\":\"");
        self.fill(out, "~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~");
        out.push_str("\",\"eventID\":\"");
        self.fill(out, "~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~");
        let reads =
            ["Get", "List", "Describe", "Decrypt", "Assume", "Generate"].iter().any(|one| name.starts_with(one));
        write(out, format_args!("\",\"readOnly\":{reads},"));
        if source == "s3" || source == "kms" {
            self.fill(out, r#""resources":[{"accountId":"111122223333","type":"AWS::S3::Object","ARN":"arn:aws:s3:::example-data-~~~~/part-~~~~~~~~.parquet"},{"accountId":"111122223333","type":"AWS::KMS::Key","ARN":"arn:aws:kms:eu-central-1:111122223333:key/~~~~~~~~-~~~~-~~~~-~~~~-~~~~~~~~~~~~"}],"#);
        }
        write(
            out,
            format_args!(
                "\"eventType\":\"AwsApiCall\",\"managementEvent\":true,\"recipientAccountId\":\"111122223333\",\"eventCategory\":\"Management\",\
             \"tlsDetails\":{{\"tlsVersion\":\"TLSv1.3\",\"cipherSuite\":\"TLS_AES_128_GCM_SHA256\",\
             \"clientProvidedHostHeader\":\"{source}.eu-central-1.amazonaws.com\"}}}}"
            ),
        );
    }

    fn identity(&mut self, out: &mut String, source: &str, time: &str) {
        match self.random.u8(..20) {
            0..2 => write(out, format_args!("{{\"type\":\"AWSService\",\"invokedBy\":\"{source}.amazonaws.com\"}}")),
            // A person's secret is told of.
            2 if source != "secretsmanager" => self.fill(out, r#"{"type":"IAMUser","principalId":"AIDAEXAMPLE~~~~~~~~~","arn":"arn:aws:iam::111122223333:user/build","accountId":"111122223333","accessKeyId":"AKIAEXAMPLE~~~~~~~~~","userName":"build"}"#),
            _ => {
                let role = self.random.choice(ROLES).unwrap_or_default();
                let instance = match self.random.u8(..4) {
                    0 => format!("i-0{:016x}", self.random.u64(..) % 512 + 0x1000_0000),
                    1 => "AutoScaling".to_owned(),
                    _ => format!("worker-{}", self.random.u32(1_000_000..)),
                };
                write(out, format_args!(
                    "{{\"type\":\"AssumedRole\",\"principalId\":\"AROAEXAMPLE0000000001:{instance}\",\
                     \"arn\":\"arn:aws:sts::111122223333:assumed-role/{role}/{instance}\",\"accountId\":\"111122223333\",\"accessKeyId\":\"ASIAEXAMPLE"
                ));
                self.fill(out, "~~~~~~~~~");
                write(out, format_args!(
                    "\",\"sessionContext\":{{\"sessionIssuer\":{{\"type\":\"Role\",\"principalId\":\"AROAEXAMPLE0000000001\",\
                     \"arn\":\"arn:aws:iam::111122223333:role/{role}\",\"accountId\":\"111122223333\",\"userName\":\"{role}\"}},\
                     \"attributes\":{{\"creationDate\":\"{time}\",\"mfaAuthenticated\":\"false\"}},\"ec2RoleDelivery\":\"2.0\"}}}}"
                ));
            }
        }
    }

    /// The long answer of a call that reads: 1 to 100 KB, mostly short.
    fn many_items(&mut self, out: &mut String) {
        let count = 1 << self.random.u32(3..9);
        out.push_str("{\"items\":[");
        for index in 0..count {
            if index > 0 {
                out.push(',');
            }
            self.fill(out, r#"{"resourceId":"eni-0~~~~~~~~~~~~~~~~","zone":"eu-central-1a","status":"in-use","attachment":{"instance":"i-0~~~~~~~~~~~~~~~~","deleteOnTermination":true},"groups":["sg-0~~~~~~~~"],"note":"primary \"worker\" interface"}"#);
        }
        out.push_str("]}");
    }

    /// Writes the template, with a random hexadecimal digit in place of each `~`.
    fn fill(&mut self, out: &mut String, template: &str) {
        let random = &mut self.random;
        out.extend(template.chars().map(|char| match char {
            '~' => char::from_digit(random.u32(..16), 16).unwrap_or('0'),
            other => other,
        }));
    }
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all");
}
