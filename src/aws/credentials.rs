//! Credentials from the SDK's chain, read anew.
//!
//! The chain reads the keys of a profile once and keeps them for good: keys that are rotated in the file would never be
//! picked up. [`Fresh`] builds the chain again whenever the SDK's cache asks, and gives keys without an end one of their own,
//! so that the cache asks. Credentials of a role bring their end, and are asked for again shortly before it.

use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use futures_util::future::BoxFuture;

/// How long keys without an end are kept; less what the SDK's cache takes off.
const KEEP: Duration = Duration::from_secs(60);

type Build = Box<dyn Fn() -> BoxFuture<'static, SharedCredentialsProvider> + Send + Sync>;

/// A chain that is built for each request.
pub(super) struct Fresh {
    build: Build,
    keep: Duration,
}

impl Fresh {
    /// The SDK's own chain: environment, profiles, web identity, container, instance.
    pub(super) fn of_the_process(region: Option<Region>) -> Self {
        let build = move || -> BoxFuture<'static, SharedCredentialsProvider> {
            let chain = DefaultCredentialsChain::builder().region(region.clone());
            Box::pin(async move { SharedCredentialsProvider::new(chain.build().await) })
        };
        Self { build: Box::new(build), keep: KEEP }
    }

    async fn provide(&self) -> provider::Result {
        let mut credentials = (self.build)().await.provide_credentials().await?;
        if credentials.expiry().is_none() {
            *credentials.expiry_mut() = SystemTime::now().checked_add(self.keep);
        }
        Ok(credentials)
    }
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fresh")
    }
}

impl ProvideCredentials for Fresh {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

#[cfg(test)]
#[allow(deprecated, reason = "what replaces the names of profile files is in a crate that nothing else here needs")]
mod tests {
    use std::path::Path;

    use aws_config::profile::ProfileFileCredentialsProvider;
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};

    use super::super::tests::{meter, serve};
    use super::super::{STALL_TIMEOUT, local, sqs};
    use super::*;
    use crate::ports::{ErrorClass, Fault, MessageQueue};

    fn write_keys(file: &Path, id: &str) {
        let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = example\n");
        std::fs::write(file, text).unwrap();
    }

    fn of_profile(file: &Path, keep: Duration) -> Fresh {
        let file = file.to_owned();
        let build = move || -> BoxFuture<'static, SharedCredentialsProvider> {
            let files = ProfileFiles::builder().with_file(ProfileFileKind::Credentials, file.clone()).build();
            let profile =
                ProfileFileCredentialsProvider::builder().profile_files(files).profile_name("default").build();
            Box::pin(async { SharedCredentialsProvider::new(profile) })
        };
        Fresh { build: Box::new(build), keep }
    }

    #[tokio::test]
    async fn keys_that_are_rotated_in_a_file_are_used_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        write_keys(&file, "AKIAFIRSTEXAMPLE0001");
        let expired = [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 46\r\nconnection: close\r\n\r\n",
            r#"{"__type":"ExpiredToken","message":"too late"}"#,
        ];
        let (endpoint, mut requests) = serve(vec![expired.concat().into_bytes(); 2]).await;
        // The SDK's cache takes some seconds off, so that it asks each time.
        let provider = SharedCredentialsProvider::new(of_profile(&file, Duration::ZERO));
        let sdk = local(&endpoint, "eu-west-1", STALL_TIMEOUT).to_builder().credentials_provider(provider).build();
        let queue = sqs::Sqs::new(&sdk, "https://sqs.eu-west-1.amazonaws.com/111122223333/trail", meter());
        for id in ["AKIAFIRSTEXAMPLE0001", "AKIASECONDEXAMPLE002"] {
            write_keys(&file, id);
            let error = queue.attributes().await.unwrap_err();
            assert_eq!((error.class, error.fault), (ErrorClass::Config, Fault::Credentials));
            let request = requests.recv().await.unwrap();
            assert!(request.contains(&format!("Credential={id}/")), "signed with {id}: {request}");
        }
    }

    #[tokio::test]
    async fn keys_without_an_end_are_read_again_within_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        write_keys(&file, "AKIAFIRSTEXAMPLE0001");
        let before = SystemTime::now();
        let end = of_profile(&file, KEEP).provide_credentials().await.unwrap().expiry().unwrap();
        assert!(end <= SystemTime::now() + Duration::from_secs(60) && end > before);
    }

    #[tokio::test]
    async fn credentials_that_end_keep_their_end() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let build = move || -> BoxFuture<'static, SharedCredentialsProvider> {
            let role =
                aws_credential_types::Credentials::new("ASIAROLEEXAMPLE00001", "example", None, Some(end), "role");
            Box::pin(async { SharedCredentialsProvider::new(role) })
        };
        let fresh = Fresh { build: Box::new(build), keep: KEEP };
        assert_eq!(fresh.provide_credentials().await.unwrap().expiry(), Some(end));
    }
}
