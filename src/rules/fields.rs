//! The fields of a CloudTrail record, as far as AWS documents them.
//!
//! Source: the record contents and the `userIdentity` element in the CloudTrail user guide,
//! <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>.

use super::suggest::nearest;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Boolean,
    /// An object, or a list of objects.
    Object,
    /// Whatever the service writes.
    Any,
}

/// Why a path leads nowhere.
pub(super) struct Unknown {
    pub(super) name: String,
    /// The whole path as it was probably meant.
    pub(super) near: Option<String>,
    /// It belongs to EventBridge's event, around the record.
    pub(super) envelope: bool,
}

pub(super) const IDENTITY_TYPES: [&str; 12] = [
    "Root",
    "IAMUser",
    "AssumedRole",
    "Role",
    "FederatedUser",
    "Directory",
    "AWSAccount",
    "AWSService",
    "IdentityCenterUser",
    "SAMLUser",
    "WebIdentityUser",
    "Unknown",
];

const ENVELOPE: [&str; 4] = ["detail", "detail-type", "source", "account"];

/// A path, and what is there. What stands below an open object is the service's own.
const FIELDS: &[(&str, Shape)] = &[
    ("eventVersion", Shape::Text),
    ("userIdentity", Shape::Object),
    ("userIdentity.type", Shape::Text),
    ("userIdentity.principalId", Shape::Text),
    ("userIdentity.arn", Shape::Text),
    ("userIdentity.accountId", Shape::Text),
    ("userIdentity.accessKeyId", Shape::Text),
    ("userIdentity.userName", Shape::Text),
    ("userIdentity.invokedBy", Shape::Text),
    ("userIdentity.identityProvider", Shape::Text),
    ("userIdentity.credentialId", Shape::Text),
    ("userIdentity.sessionContext", Shape::Object),
    ("userIdentity.sessionContext.sessionIssuer", Shape::Object),
    ("userIdentity.sessionContext.sessionIssuer.type", Shape::Text),
    ("userIdentity.sessionContext.sessionIssuer.principalId", Shape::Text),
    ("userIdentity.sessionContext.sessionIssuer.arn", Shape::Text),
    ("userIdentity.sessionContext.sessionIssuer.accountId", Shape::Text),
    ("userIdentity.sessionContext.sessionIssuer.userName", Shape::Text),
    ("userIdentity.sessionContext.attributes", Shape::Object),
    ("userIdentity.sessionContext.attributes.creationDate", Shape::Text),
    ("userIdentity.sessionContext.attributes.mfaAuthenticated", Shape::Text),
    ("userIdentity.sessionContext.webIdFederationData", Shape::Object),
    ("userIdentity.sessionContext.webIdFederationData.federatedProvider", Shape::Text),
    ("userIdentity.sessionContext.webIdFederationData.attributes", Shape::Any),
    ("userIdentity.sessionContext.sourceIdentity", Shape::Text),
    ("userIdentity.sessionContext.ec2RoleDelivery", Shape::Text),
    ("userIdentity.sessionContext.ec2IssuedInVpc", Shape::Text),
    ("userIdentity.sessionContext.assumedRoot", Shape::Any),
    ("userIdentity.onBehalfOf", Shape::Object),
    ("userIdentity.onBehalfOf.userId", Shape::Text),
    ("userIdentity.onBehalfOf.identityStoreArn", Shape::Text),
    ("userIdentity.inScopeOf", Shape::Any),
    ("eventTime", Shape::Text),
    ("eventSource", Shape::Text),
    ("eventName", Shape::Text),
    ("awsRegion", Shape::Text),
    ("sourceIPAddress", Shape::Text),
    ("userAgent", Shape::Text),
    ("errorCode", Shape::Text),
    ("errorMessage", Shape::Text),
    ("requestParameters", Shape::Any),
    ("responseElements", Shape::Any),
    ("additionalEventData", Shape::Any),
    ("requestID", Shape::Text),
    ("eventID", Shape::Text),
    ("eventType", Shape::Text),
    ("apiVersion", Shape::Text),
    ("managementEvent", Shape::Boolean),
    ("readOnly", Shape::Boolean),
    ("resources", Shape::Object),
    ("resources.ARN", Shape::Text),
    ("resources.ARNPrefix", Shape::Text),
    ("resources.accountId", Shape::Text),
    ("resources.type", Shape::Text),
    ("recipientAccountId", Shape::Text),
    ("serviceEventDetails", Shape::Any),
    ("sharedEventID", Shape::Text),
    ("vpcEndpointId", Shape::Text),
    ("vpcEndpointAccountId", Shape::Text),
    ("eventCategory", Shape::Text),
    ("addendum", Shape::Object),
    ("addendum.reason", Shape::Text),
    ("addendum.updatedFields", Shape::Text),
    ("addendum.originalRequestID", Shape::Text),
    ("addendum.originalEventID", Shape::Text),
    ("sessionCredentialFromConsole", Shape::Any),
    ("eventContext", Shape::Any),
    ("edgeDeviceDetails", Shape::Any),
    ("insightDetails", Shape::Any),
    ("insightSource", Shape::Any),
    ("tlsDetails", Shape::Object),
    ("tlsDetails.tlsVersion", Shape::Text),
    ("tlsDetails.cipherSuite", Shape::Text),
    ("tlsDetails.clientProvidedHostHeader", Shape::Text),
    ("tlsDetails.keyExchange", Shape::Text),
];

/// What stands at a path.
///
/// # Errors
///
/// No record is known to have it.
pub(super) fn look_up(path: &str) -> Result<Shape, Unknown> {
    if let Some((_, shape)) = FIELDS.iter().find(|(known, _)| *known == path) {
        return Ok(*shape);
    }
    let below = |known: &str| path.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'));
    if FIELDS.iter().any(|(known, shape)| *shape == Shape::Any && below(known)) {
        return Ok(Shape::Any);
    }
    let name = path.split('.').next().unwrap_or_default();
    // A slip in the first name of an open object leaves the rest as it is.
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let open = FIELDS.iter().filter(|(_, shape)| *shape == Shape::Any).map(|(known, _)| *known);
    let near = nearest(path, FIELDS.iter().map(|(known, _)| *known)).map(str::to_owned);
    let near = near.or_else(|| nearest(first, open).filter(|_| !rest.is_empty()).map(|near| format!("{near}.{rest}")));
    Err(Unknown { name: name.to_owned(), near, envelope: ENVELOPE.contains(&name) })
}

/// Whether nearly every record has a value there.
pub(super) fn is_usual(path: &str) -> bool {
    const USUAL: [&str; 16] = [
        "eventVersion",
        "userIdentity.type",
        "userIdentity.arn",
        "userIdentity.accountId",
        "userIdentity.principalId",
        "eventTime",
        "eventSource",
        "eventName",
        "awsRegion",
        "sourceIPAddress",
        "userAgent",
        "eventID",
        "eventType",
        "recipientAccountId",
        "readOnly",
        "eventCategory",
    ];
    USUAL.contains(&path)
}

/// Whether most records have nothing there.
pub(super) fn is_rare(path: &str) -> bool {
    matches!(path, "errorCode" | "errorMessage" | "userIdentity.invokedBy" | "responseElements" | "additionalEventData")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_with_what_was_meant() {
        for (path, near) in [
            ("eventname", Some("eventName")),
            ("sourceIpAddress", Some("sourceIPAddress")),
            ("userIdentity.username", Some("userIdentity.userName")),
            (
                "userIdentity.sessionContext.sessionIssuer.username",
                Some("userIdentity.sessionContext.sessionIssuer.userName"),
            ),
            ("requestParameter.bucketName", Some("requestParameters.bucketName")),
            ("eventName.exact", None),
            ("nothing", None),
        ] {
            assert_eq!(look_up(path).unwrap_err().near.as_deref(), near, "{path}");
        }
        assert!(look_up("detail.eventName").unwrap_err().envelope);
        for path in ["requestParameters", "requestParameters.a.b", "tlsDetails.tlsVersion", "resources.type"] {
            assert!(look_up(path).is_ok(), "{path}");
        }
    }
}
