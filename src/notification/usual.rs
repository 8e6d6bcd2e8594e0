//! The shape that S3 sends nearly always, read in one pass: a fifth of the general way's time, which is half of what a small
//! object costs besides its calls.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Found, key};

/// The objects of a body whose every part is as it usually is. `None` leaves the body to the general way, which would say the
/// same of those.
pub(super) fn read(text: &str) -> Option<Vec<Found>> {
    // Other shapes are not read twice.
    if !text.starts_with('{') || !text.get(1..)?.trim_ascii_start().starts_with("\"Records\"") {
        return None;
    }
    let Object(Body { records, kind: None, event: None }) = serde_json::from_str(text).ok()? else { return None };
    if records.is_empty() {
        return None;
    }
    records.into_iter().map(|Object(record)| record.found()).collect()
}

// A field that stands twice, or has another type than here, is an error, and so for the general way.

#[derive(serde::Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<Object<Record<'a>>>,
    #[serde(rename = "Type")]
    kind: Option<IgnoredAny>,
    #[serde(rename = "Event")]
    event: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    event_name: Cow<'a, str>,
    #[serde(borrow, rename = "awsRegion")]
    region: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    s3: Object<S3<'a>>,
}

#[derive(serde::Deserialize)]
struct S3<'a> {
    #[serde(borrow)]
    bucket: Object<Bucket<'a>>,
    #[serde(borrow)]
    object: Object<S3Object<'a>>,
}

#[derive(serde::Deserialize)]
struct Bucket<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Object<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    size: Option<u64>,
    #[serde(borrow)]
    version_id: Option<Cow<'a, str>>,
}

impl Record<'_> {
    fn found(self) -> Option<Found> {
        let Object(S3 { bucket: Object(bucket), object: Object(object) }) = self.s3;
        let filled = |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(Cow::into_owned);
        if !self.event_name.starts_with("ObjectCreated:") {
            return None;
        }
        Some(Found {
            bucket: filled(Some(bucket.name))?,
            key: key::decode(&filled(Some(object.key))?),
            fallback_key: None,
            version_id: filled(object.version_id),
            size: object.size,
            region: filled(self.region),
            created_at: self.event_time.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok()),
        })
    }
}

/// A JSON object: serde would take an array for a struct, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}
