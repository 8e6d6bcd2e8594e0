//! What is in a bucket.

use async_trait::async_trait;

use super::errors::{self, Operation};
use super::s3::{MAX_REDIRECTS, S3, arn, elsewhere, is_bucket};
use crate::listing::{Listed, ObjectLister, Page};
use crate::ports::{ErrorClass, Fault, PortError};

const LIST: Operation = Operation {
    name: "s3:ListObjectsV2",
    action: "s3:ListBucket",
    kms: "kms:Decrypt",
    refused: ErrorClass::Permanent,
    invalid: ErrorClass::Permanent,
};

#[async_trait]
impl ObjectLister for S3 {
    async fn page(&self, bucket: &str, prefix: &str, folders: bool, after: Option<&str>) -> Result<Page, PortError> {
        self.meter
            .call(LIST.name, async {
                if !is_bucket(bucket) {
                    let detail = format!("\"{bucket}\" is not the name of a bucket");
                    return Err(errors::failure(&LIST, ErrorClass::Permanent, Fault::Invalid, &detail));
                }
                let mut region = self.found_in(bucket).unwrap_or_else(|| self.home.clone());
                for _ in 0..=MAX_REDIRECTS {
                    let sent = self
                        .client(&region)
                        .list_objects_v2()
                        .bucket(bucket)
                        .prefix(prefix)
                        .set_delimiter(folders.then(|| "/".to_owned()))
                        .set_continuation_token(after.map(str::to_owned))
                        .send()
                        .await;
                    let error = match sent {
                        Ok(output) => {
                            self.remember(bucket, &region);
                            return Ok(page(output));
                        }
                        Err(error) => error,
                    };
                    match elsewhere(&error).filter(|other| *other != region) {
                        Some(other) => region = other,
                        None => return Err(errors::classify(error, &LIST, &arn(bucket, "", &region))),
                    }
                }
                let detail = format!("bucket {bucket} was sent from region to region, last to {region}");
                Err(errors::unavailable(&LIST, &detail, None))
            })
            .await
    }
}

fn page(output: aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output) -> Page {
    let next = output.next_continuation_token.filter(|_| output.is_truncated == Some(true));
    let objects = output.contents.unwrap_or_default().into_iter().filter_map(|object| {
        let size = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        Some(Listed { key: object.key?, size })
    });
    let folders = output.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
    Page { objects: objects.collect(), folders: folders.collect(), next }
}
