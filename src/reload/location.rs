//! Where the rule file lies: on a disk, or in S3.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the rules are read from: `rules.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulePath {
    File(PathBuf),
    Object(RuleObject),
}

/// A rule file in S3: `s3://bucket/key`, or `s3://bucket/key?versionId=ID` for one version of it that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleObject {
    pub bucket: String,
    /// As S3 stores it: nothing in it is decoded.
    pub key: String,
    pub version_id: Option<String>,
}

/// What begins an address in S3.
const SCHEME: &str = "s3://";
const VERSION: &str = "?versionId=";

impl FromStr for RulePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(address) = text.strip_prefix(SCHEME) else {
            // A colon may stand in the name of a file, but nobody's file is called so.
            return match text.split_once("://") {
                Some((scheme, _)) => Err(format!(
                    "{scheme}:// is not read; write the path of a file, or s3://bucket/key for an object in S3"
                )),
                None => Ok(Self::File(PathBuf::from(text))),
            };
        };
        let (address, version_id) = match address.rsplit_once(VERSION) {
            Some((address, id)) => (address, Some(id)),
            None => (address, None),
        };
        let (bucket, key) = address.split_once('/').unwrap_or((address, ""));
        if bucket.is_empty() || key.is_empty() || key.ends_with('/') || version_id == Some("") {
            return Err(format!(
                "{text:?} names no object; write s3://bucket/key, or s3://bucket/key{VERSION}ID for one version"
            ));
        }
        Ok(Self::Object(RuleObject {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: version_id.map(str::to_owned),
        }))
    }
}

impl From<PathBuf> for RulePath {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Display for RulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Object(object) => object.fmt(f),
        }
    }
}

impl fmt::Display for RuleObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, key, version_id } = self;
        write!(f, "{SCHEME}{bucket}/{key}")?;
        version_id.as_ref().map_or(Ok(()), |id| write!(f, "{VERSION}{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bucket: &str, key: &str, version_id: Option<&str>) -> RulePath {
        RulePath::Object(RuleObject {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: version_id.map(str::to_owned),
        })
    }

    #[test]
    fn a_path_is_a_file_or_an_object() {
        for (text, expected) in [
            ("monitored_events.json", RulePath::File("monitored_events.json".into())),
            ("/etc/trailhound/a:b.json", RulePath::File("/etc/trailhound/a:b.json".into())),
            ("s3:/rules", RulePath::File("s3:/rules".into())),
            ("s3://rules/trailhound.json", object("rules", "trailhound.json", None)),
            ("s3://rules/a/b%20c?d.json", object("rules", "a/b%20c?d.json", None)),
            ("s3://rules/a.json?versionId=3HL4.kq_x", object("rules", "a.json", Some("3HL4.kq_x"))),
        ] {
            let path: RulePath = text.parse().unwrap();
            assert_eq!(path, expected);
            assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn an_address_without_an_object_is_refused_with_what_to_write() {
        for text in ["s3://", "s3://rules", "s3://rules/", "s3:///a.json", "s3://rules/a/", "s3://r/a?versionId="] {
            let error = text.parse::<RulePath>().unwrap_err();
            assert!(error.contains("write s3://bucket/key"), "{text}: {error}");
        }
        let error = "https://rules.s3.amazonaws.com/a.json".parse::<RulePath>().unwrap_err();
        assert!(error.starts_with("https:// is not read; write"), "{error}");
    }
}
