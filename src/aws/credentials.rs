//! Credentials from the SDK's chain, read anew.
//!
//! The chain reads the keys of a profile once and keeps them for good: keys that are rotated in the file would never be
//! picked up. [`Fresh`] builds the chain again whenever the SDK's cache asks, and gives keys without an end one of their own,
//! so that the cache asks. Credentials of a role bring their end, and are asked for again shortly before it.
//!
//! Credentials can also be revoked before they end, and the cache would keep them: [`Held`] forgets them when a service
//! refuses them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::identity::{
    IdentityFuture, ResolveCachedIdentity, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::env::lock;
use crate::ports::{ErrorClass, Fault, PortError};

/// How long keys without an end are kept; less what the SDK's cache takes off.
const KEEP: Duration = Duration::from_secs(60);

/// Refused credentials are asked for again no more often than this: while they are wrong, every call is refused.
const RENEW: Duration = Duration::from_secs(10);

type Build = Box<dyn Fn() -> BoxFuture<'static, SharedCredentialsProvider> + Send + Sync>;

/// A chain that is built for each request.
pub(super) struct Fresh {
    build: Build,
    keep: Duration,
}

impl Fresh {
    /// The SDK's own chain: environment, profiles, web identity, container, instance.
    pub(super) fn of_the_process(region: Option<Region>, http: SharedHttpClient) -> Self {
        let build = move || -> BoxFuture<'static, SharedCredentialsProvider> {
            let with = ProviderConfig::without_region().with_http_client(http.clone());
            let chain = DefaultCredentialsChain::builder().configure(with).region(region.clone());
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

/// The SDK's cache of credentials, which all clients share. What it holds can be forgotten before its end.
#[derive(Clone, Debug)]
pub(super) struct Held(Arc<Mutex<Cache>>);

#[derive(Debug)]
struct Cache {
    cache: SharedIdentityCache,
    forgotten: Option<Instant>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Cache { cache: IdentityCache::lazy().build(), forgotten: None })))
    }

    /// Looks at the error of a call. Where its credentials were refused, the next call asks for new ones. Sessions of a
    /// role are revoked by a policy that denies everything, so a denial that is the process's own fault counts, too.
    pub(super) fn failed(&self, error: &PortError) {
        let refused = match error.fault {
            Fault::Credentials => true,
            Fault::Denied { .. } => error.class == ErrorClass::Config,
            _ => false,
        };
        if !refused {
            return;
        }
        let mut held = lock(&self.0);
        if held.forgotten.is_none_or(|at| at.elapsed() >= RENEW) {
            *held = Cache { cache: IdentityCache::lazy().build(), forgotten: Some(Instant::now()) };
            tracing::debug!(operation = error.operation, "credentials were refused, and are asked for again");
        }
    }
}

impl ResolveCachedIdentity for Held {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        runtime_components: &'a RuntimeComponents,
        config_bag: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let cache = lock(&self.0).cache.clone();
        IdentityFuture::new(
            async move { cache.resolve_cached_identity(resolver, runtime_components, config_bag).await },
        )
    }
}

#[cfg(test)]
#[allow(deprecated, reason = "what replaces the names of profile files is in a crate that nothing else here needs")]
mod tests {
    use std::path::Path;

    use aws_config::profile::ProfileFileCredentialsProvider;
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};

    use super::super::tests::{meter, ok, serve};
    use super::super::{STALL_TIMEOUT, Settings, local, ports, sqs};
    use super::*;
    use crate::metrics::Metrics;
    use crate::ports::MessageQueue;

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

    fn refused(status: &str, code: &str) -> Vec<u8> {
        let body = format!(r#"{{"__type":"{code}","message":"User: x is not authorized, with an explicit deny"}}"#);
        let length = body.len();
        format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes()
    }

    /// They would be good for another minute, or for hours.
    #[tokio::test]
    async fn keys_that_are_refused_before_their_end_are_forgotten() {
        for (status, code) in [
            ("403", "InvalidClientTokenId"),
            ("403", "UnrecognizedClientException"),
            ("403", "InvalidAccessKeyId"),
            ("400", "ExpiredToken"),
            ("400", "ExpiredTokenException"),
            ("403", "SignatureDoesNotMatch"),
            ("403", "AccessDenied"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("credentials");
            write_keys(&file, "AKIAFIRSTEXAMPLE0001");
            let (endpoint, mut requests) =
                serve(vec![refused(status, code), ok(r#"{"Attributes":{"VisibilityTimeout":"30"}}"#)]).await;
            let provider = SharedCredentialsProvider::new(of_profile(&file, Duration::from_secs(12 * 3600)));
            let sdk = local(&endpoint, "eu-west-1", STALL_TIMEOUT).to_builder().credentials_provider(provider).build();
            let settings = Settings { queue_url: "trail".to_owned(), ..Settings::default() };
            let ports = ports(&sdk, true, &settings, Arc::new(Metrics::new().unwrap()));
            for id in ["AKIAFIRSTEXAMPLE0001", "AKIASECONDEXAMPLE002"] {
                let refused = ports.queue.attributes().await.is_err();
                let request = requests.recv().await.unwrap();
                assert!(request.contains(&format!("Credential={id}/")), "{code}: signed with {id}: {request}");
                assert_eq!(refused, id == "AKIAFIRSTEXAMPLE0001", "{code}");
                write_keys(&file, "AKIASECONDEXAMPLE002");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_keys_are_refused_they_are_asked_for_now_and_then() {
        let error = |class, fault| PortError { class, fault, operation: "sqs:X", detail: String::new(), source: None };
        let denied = || Fault::Denied { action: "s3:GetObject" };
        let held = Held::new();
        for (class, fault) in [
            (ErrorClass::Transient, Fault::Unavailable),
            (ErrorClass::Permanent, denied()),
            (ErrorClass::Config, Fault::Missing),
        ] {
            held.failed(&error(class, fault));
            assert_eq!(lock(&held.0).forgotten, None);
        }
        let started = Instant::now();
        let mut times = Vec::new();
        for fault in [Fault::Credentials, denied()].into_iter().cycle().take(25) {
            held.failed(&error(ErrorClass::Config, fault));
            times.push(lock(&held.0).forgotten.unwrap().duration_since(started).as_secs());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        times.dedup();
        assert_eq!(times, [0, 10, 20]);
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
