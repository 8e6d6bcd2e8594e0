//! What a failed call means. The only place where an SDK error becomes a [`PortError`].

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::ports::{ErrorClass, Fault, PortError};

/// How much of a foreign text is told.
const DETAIL_LIMIT: usize = 600;

/// An API operation, and what its refusals mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// `service:Operation`.
    pub name: &'static str,
    /// The IAM action that it takes.
    pub action: &'static str,
    /// The KMS action that the caller needs where the resource is encrypted with a key of one's own.
    pub kms: &'static str,
    /// Whose fault a denial, a missing resource or an unknown refusal is.
    pub refused: ErrorClass,
    /// Whose fault a request is that the service calls invalid.
    pub invalid: ErrorClass,
}

/// Classifies a failed call on `resource`, an ARN or another name that tells where to look.
pub(super) fn classify<E>(error: SdkError<E, HttpResponse>, operation: &Operation, resource: &str) -> PortError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(context) => {
            let (metadata, raw) = (context.err().meta(), context.raw());
            let answer = Answer {
                status: raw.status().as_u16(),
                code: metadata.code(),
                message: metadata.message().unwrap_or_default(),
                empty: raw.body().bytes().is_some_and(<[u8]>::is_empty),
                blamed: None,
            };
            // The SDK's error is not kept as the source: its debug form prints bodies and receipt handles.
            answer.judge(operation, resource)
        }
        SdkError::ConstructionFailure(_) => {
            let text = chain(&error);
            let reason = unsent(&text, operation).unwrap_or((operation.refused, Fault::Invalid, UNBUILT));
            local(Box::new(error), &text, reason, operation)
        }
        SdkError::DispatchFailure(ref failure) => {
            let text = chain(&error);
            match unsent(&text, operation) {
                Some(reason) if !failure.is_io() && !failure.is_timeout() => {
                    local(Box::new(error), &text, reason, operation)
                }
                _ => unavailable(operation, &format!("no answer: {text}"), Some(Box::new(error))),
            }
        }
        SdkError::TimeoutError(_) => {
            let text = chain(&error);
            unavailable(operation, &format!("no answer in time: {text}"), Some(Box::new(error)))
        }
        _ => {
            let text = chain(&error);
            unavailable(operation, &format!("the answer cannot be read: {text}"), None)
        }
    }
}

/// Classifies one failed entry of a batch that was answered.
pub(super) fn classify_entry(
    operation: &Operation,
    resource: &str,
    code: &str,
    message: Option<&str>,
    sender_fault: bool,
) -> PortError {
    let answer = Answer {
        status: 200,
        code: Some(code),
        message: message.unwrap_or_default(),
        empty: false,
        blamed: Some(sender_fault),
    };
    answer.judge(operation, resource)
}

/// A failure that may pass.
pub(super) fn unavailable(
    operation: &Operation,
    detail: &str,
    source: Option<Box<dyn Error + Send + Sync>>,
) -> PortError {
    PortError {
        class: ErrorClass::Transient,
        fault: Fault::Unavailable,
        operation: operation.name,
        detail: one_line(detail),
        source,
    }
}

/// Others wrote to the same items at the same time.
pub(super) fn contended(operation: &Operation, detail: &str) -> PortError {
    PortError { fault: Fault::Contended, ..unavailable(operation, detail, None) }
}

/// A failure of a class and fault that the adapter knows.
pub(super) fn failure(operation: &Operation, class: ErrorClass, fault: Fault, detail: &str) -> PortError {
    PortError { class, fault, operation: operation.name, detail: one_line(detail), source: None }
}

const UNBUILT: &str = "no request can hold this name";

/// Why a call was never sent: no credentials, no region, or a name that no request can hold. The SDK tells these from
/// broken connections by their texts only.
fn unsent(text: &str, operation: &Operation) -> Option<(ErrorClass, Fault, &'static str)> {
    let text = text.to_ascii_lowercase();
    let speaks_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if speaks_of(&["credential", "identity"]) {
        let advice = "give the process credentials: a task role, an instance profile, or the AWS_* variables";
        Some((ErrorClass::Config, Fault::Credentials, advice))
    } else if speaks_of(&["missing region", "signing region", "region must be set"]) {
        Some((ErrorClass::Config, Fault::Invalid, "set AWS_REGION"))
    } else if speaks_of(&["bucket"]) {
        Some((operation.refused, Fault::Invalid, UNBUILT))
    } else if speaks_of(&["endpoint", "region", "invalid configuration"]) {
        Some((ErrorClass::Config, Fault::Invalid, "look at the settings for region and endpoint"))
    } else {
        None
    }
}

fn local(
    error: Box<dyn Error + Send + Sync>,
    text: &str,
    (class, fault, advice): (ErrorClass, Fault, &str),
    operation: &Operation,
) -> PortError {
    let detail = format!("{}; {advice}", one_line(text));
    PortError { class, fault, operation: operation.name, detail, source: Some(error) }
}

/// What a service answered, as far as it decides the class.
struct Answer<'a> {
    status: u16,
    code: Option<&'a str>,
    message: &'a str,
    empty: bool,
    /// For an entry of a batch: whether the service says that the request was at fault.
    blamed: Option<bool>,
}

impl Answer<'_> {
    fn judge(&self, operation: &Operation, resource: &str) -> PortError {
        let (class, fault, advice) = self.verdict(operation, resource);
        let said = match (self.code, self.message) {
            // The service repeats the receipt handle, and whoever has that can delete the message.
            (Some(code), _) if fault == Fault::LeaseLost => code.to_owned(),
            (Some(code), "") => format!("{code} (HTTP {})", self.status),
            (Some(code), message) => format!("{code}: {message}"),
            (None, _) => format!("HTTP {}", self.status),
        };
        let detail = if advice.is_empty() { one_line(&said) } else { format!("{}; {advice}", one_line(&said)) };
        PortError { class, fault, operation: operation.name, detail, source: None }
    }

    fn verdict(&self, operation: &Operation, resource: &str) -> (ErrorClass, Fault, String) {
        let passing = (ErrorClass::Transient, Fault::Unavailable, String::new());
        let Some(code) = self.code.map(bare) else {
            return match self.status {
                // An answer to a HEAD request, and some emulators' answers, have no body.
                401 | 403 if self.empty => self.denied(operation, resource),
                300..=499 if self.empty => (operation.refused, Fault::Invalid, String::new()),
                500.. => passing,
                _ => (
                    ErrorClass::Transient,
                    Fault::Unavailable,
                    "this is not an answer of AWS: is there a proxy, or a wrong AWS_ENDPOINT_URL?".to_owned(),
                ),
            };
        };
        if matches!(code, "TransactionConflictException" | "TransactionInProgressException") {
            return (ErrorClass::Transient, Fault::Contended, String::new());
        }
        if is_passing(code) || self.status >= 500 || matches!(self.status, 408 | 429) {
            return passing;
        }
        if let Some(advice) = credentials_advice(code, self.message) {
            return (ErrorClass::Config, Fault::Credentials, advice.to_owned());
        }
        if code.to_ascii_lowercase().starts_with("kms") {
            return self.kms_denied(operation, resource);
        }
        if let Some(advice) = index_advice(self.message, resource).filter(|_| code == "ValidationException") {
            return (ErrorClass::Config, Fault::Missing, advice);
        }
        match code {
            "AccessDenied"
            | "AccessDeniedException"
            | "AuthorizationError"
            | "AuthorizationErrorException"
            | "AllAccessDisabled"
            | "Forbidden"
            | "UnauthorizedOperation"
            | "UnauthorizedAccess" => self.denied(operation, resource),
            "NoSuchKey"
            | "NoSuchVersion"
            | "NoSuchBucket"
            | "NotFound"
            | "NotFoundException"
            | "QueueDoesNotExist"
            | "NonExistentQueue"
            | "QueueDeletedRecently"
            | "ResourceNotFoundException"
            | "InvalidAddress" => (
                operation.refused,
                Fault::Missing,
                format!("{resource} does not exist: look at its name, account and region"),
            ),
            // The version that was asked for is a delete marker.
            "MethodNotAllowed" => (operation.refused, Fault::Missing, format!("{resource} was deleted")),
            "InvalidObjectState" => (
                operation.invalid,
                Fault::Invalid,
                "the object is archived: restore it from Glacier, then send its notification again".to_owned(),
            ),
            "PreconditionFailed" => {
                (ErrorClass::Transient, Fault::Changed, "the object was replaced while it was read".to_owned())
            }
            "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidReceiptHandle" => lease_lost(),
            "InvalidParameterValue" | "InvalidParameterValueException" if speaks_of_receipt(self.message) => {
                lease_lost()
            }
            "InvalidParameter" | "InvalidParameterException" if self.message.contains("TopicArn") => {
                (ErrorClass::Config, Fault::Missing, format!("{resource} is not a topic that can be used"))
            }
            "ValidationException" if speaks_of_keys(self.message) => (
                ErrorClass::Config,
                Fault::Invalid,
                "the table needs the keys EventId (S, HASH) and Timestamp (S, RANGE)".to_owned(),
            ),
            "ValidationException"
            | "ValidationError"
            | "SerializationException"
            | "InvalidParameter"
            | "InvalidParameterException"
            | "InvalidParameterValue"
            | "InvalidParameterValueException"
            | "ParameterValueInvalid"
            | "InvalidArgument"
            | "InvalidAttributeName"
            | "InvalidAttributeValue"
            | "InvalidBatchEntryId"
            | "InvalidMessageContents"
            | "EmptyBatchRequest"
            | "TooManyEntriesInBatchRequest"
            | "BatchRequestTooLong"
            | "BatchEntryIdsNotDistinct"
            | "ItemCollectionSizeLimitExceededException"
            | "InvalidBucketName"
            | "KeyTooLongError"
            | "InvalidRequest" => (operation.invalid, Fault::Invalid, String::new()),
            _ => match self.blamed {
                Some(true) => (operation.invalid, Fault::Invalid, String::new()),
                Some(false) => passing,
                None if self.status < 300 => passing,
                None => (operation.refused, Fault::Invalid, String::new()),
            },
        }
    }

    fn denied(&self, operation: &Operation, resource: &str) -> (ErrorClass, Fault, String) {
        let refused = self.message.split_once("to perform: ").and_then(|(_, rest)| rest.split_whitespace().next());
        let by_kms = match refused {
            Some(action) => action.starts_with("kms:"),
            None => self.message.contains("kms:") || self.message.contains("KMS"),
        };
        if by_kms {
            return self.kms_denied(operation, resource);
        }
        let action = operation.action;
        let policy = if self.message.contains("explicit deny") { ", and look for a policy that denies it" } else { "" };
        (operation.refused, Fault::Denied { action }, format!("grant {action} on {resource}{policy}"))
    }

    fn kms_denied(&self, operation: &Operation, resource: &str) -> (ErrorClass, Fault, String) {
        let action = if self.message.contains("kms:Decrypt") {
            "kms:Decrypt"
        } else if self.message.contains("kms:GenerateDataKey") {
            "kms:GenerateDataKey"
        } else {
            operation.kms
        };
        let advice = format!("grant {action} on the key that encrypts {resource}, and see that the key is enabled");
        (operation.refused, Fault::KmsDenied { action }, advice)
    }
}

fn lease_lost() -> (ErrorClass, Fault, String) {
    (ErrorClass::Permanent, Fault::LeaseLost, "the receipt handle is no longer valid".to_owned())
}

/// A code without the namespace that SQS and S3 put before some.
fn bare(code: &str) -> &str {
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

/// Throttling, in the words of each service, and other states that pass.
fn is_passing(code: &str) -> bool {
    code.to_ascii_lowercase().contains("throttl")
        || matches!(
            code,
            "SlowDown"
                | "ProvisionedThroughputExceededException"
                | "ProvisionedThroughputExceeded"
                | "RequestLimitExceeded"
                | "BandwidthLimitExceeded"
                | "LimitExceededException"
                | "TooManyRequests"
                | "TooManyRequestsException"
                | "OverLimit"
                | "ReplicatedWriteConflictException"
                | "PriorRequestNotComplete"
                | "ResourceInUseException"
                | "OperationAborted"
                | "RequestTimeout"
                | "RequestTimeoutException"
                | "InternalError"
                | "InternalFailure"
                | "InternalErrorException"
                | "InternalServerError"
                | "ServiceUnavailable"
                | "ServiceUnavailableException"
        )
}

/// What to do about credentials that the service refuses; `None` where they are not the matter.
fn credentials_advice(code: &str, message: &str) -> Option<&'static str> {
    let clock = "the clock of this machine is wrong: synchronise it";
    match code {
        "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => Some(clock),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "SignatureDoesNotMatchException"
            if message.contains("Signature expired") || message.contains("Signature not yet current") =>
        {
            Some(clock)
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            Some("the credentials have expired: renew them, or use a role, which renews itself")
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "UnrecognizedClient"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "InvalidSecurity"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "SignatureDoesNotMatchException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "AuthFailure"
        | "OptInRequired"
        | "NotSignedUp"
        | "AccountProblem"
        | "AuthorizationHeaderMalformed" => Some("look at the credentials and the region of this process"),
        _ => None,
    }
}

fn speaks_of_receipt(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("receipthandle")
        || message.contains("receipt handle")
        || message.contains("not available for visibility")
}

/// `DynamoDB`'s complaints about a table with other keys.
fn speaks_of_keys(message: &str) -> bool {
    ["Missing the key", "does not match the schema", "Type mismatch for"].iter().any(|words| message.contains(words))
}

/// What to do about a table's index that cannot be read.
fn index_advice(message: &str, resource: &str) -> Option<String> {
    if message.contains("does not have the specified index") {
        Some(format!("{resource} lacks the index: make it as docs/tools.md says, or scan with --scan"))
    } else if message.contains("backfilling") {
        Some(format!("the index of {resource} is still being made: wait until it is active, or scan with --scan"))
    } else {
        None
    }
}

/// The messages of an error and its causes, outermost first, without repetitions.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// One bounded line of a foreign text.
pub(super) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_LIMIT).collect();
    if text.chars().nth(DETAIL_LIMIT).is_some() {
        line.push('…');
    }
    line
}
