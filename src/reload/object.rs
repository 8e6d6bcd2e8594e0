//! Rules in S3: read at the start, and looked at now and then, since nobody sends a signal to a container on Fargate.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use super::{LoadError, MAX_FILE, RuleObject, RulePath, RuleSource, parse, text_of};
use crate::context::CHUNK_DEADLINE;
use crate::env::Env;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::ports::{ErrorClass, Fault, ObjectRequest, ObjectStore, PortError};
use crate::retry::{Backoff, call};
use crate::rules::NamedLists;

const OPERATION: &str = "s3:GetObject";

/// How many looks in a row may fail for reasons that pass before a reload counts as failed.
const PATIENCE: u32 = 3;

/// SHA-256.
type Digest = [u8; 32];

fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

/// A rule file as it was read.
#[derive(Debug, Default)]
pub struct Fetched {
    pub text: String,
    /// The object's entity tag, or a hash of the text where there is none.
    pub etag: String,
}

impl LoadError {
    /// Whether the same may work later without anybody's doing: an outage, or credentials that are still to come.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Object { source, .. } => source.class == ErrorClass::Transient || source.fault == Fault::Credentials,
            Self::Read { .. } | Self::TooLarge { .. } | Self::Rules { .. } | Self::Bug => false,
        }
    }
}

/// Reads a rule file, unless it still bears the entity tag `known`: then `None`.
///
/// # Errors
///
/// It cannot be read, is too large, or is no UTF-8.
pub async fn fetch(
    objects: &dyn ObjectStore,
    object: &RuleObject,
    known: Option<&str>,
) -> Result<Option<Fetched>, LoadError> {
    let failed = |source| LoadError::Object { object: object.clone(), source: Box::new(source) };
    let request = ObjectRequest {
        bucket: object.bucket.clone(),
        key: object.key.clone(),
        version_id: object.version_id.clone(),
        region: None,
        start: 0,
        if_match: None,
    };
    let mut body = call(OPERATION, objects.open(&request)).await.map_err(failed)?;
    if body.etag.is_some() && body.etag.as_deref() == known {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        let chunk = timeout(CHUNK_DEADLINE, body.chunks.next())
            .await
            .unwrap_or_else(|_| Err(PortError::timed_out(OPERATION, CHUNK_DEADLINE)));
        let Some(chunk) = chunk.map_err(failed)? else { break };
        bytes.extend_from_slice(&chunk);
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(LoadError::TooLarge { path: RulePath::Object(object.clone()) });
        }
    }
    let etag = body.etag.unwrap_or_else(|| format!("{:x}", Sha256::digest(&bytes)));
    if known == Some(etag.as_str()) {
        return Ok(None);
    }
    let text = text_of(bytes, || RulePath::Object(object.clone()))?;
    Ok(Some(Fetched { text, etag }))
}

/// Looks at the object every `rules.poll_interval`, and when [`RuleSource::reload`] asks: another entity tag is a
/// reload. Ends at once where the rules are a file.
pub async fn watch(rules: RuleSource, objects: Arc<dyn ObjectStore>, env: Env, interval: Duration) {
    let RulePath::Object(object) = rules.location().clone() else {
        return;
    };
    // A version never changes.
    let interval = object.version_id.is_none().then_some(interval);
    let judged = rules.status().etag;
    let mut looks = Looks { rules, objects, env, object, judged, doubted: None, failures: 0, told: None };
    loop {
        let asked = tokio::select! {
            biased;
            () = looks.rules.asked() => true,
            () = pause(interval) => false,
        };
        looks.look(asked).await;
    }
}

async fn pause(interval: Option<Duration>) {
    match interval {
        Some(interval) => sleep(interval).await,
        None => pending().await,
    }
}

/// What is remembered from one look to the next.
struct Looks {
    rules: RuleSource,
    objects: Arc<dyn ObjectStore>,
    env: Env,
    object: RuleObject,
    /// The entity tag that was last loaded or refused.
    judged: Option<String>,
    /// What was refused and is to be read once more, since a text can be cut on its way.
    doubted: Option<Digest>,
    /// Looks in a row that failed.
    failures: u32,
    /// Why the object cannot be read, as it was last told.
    told: Option<String>,
}

impl Looks {
    async fn look(&mut self, asked: bool) {
        // After a failure that was told, a reload says that it is over.
        let known = self.judged.as_deref().filter(|_| !asked && self.told.is_none());
        match fetch(&*self.objects, &self.object, known).await {
            Ok(fetched) => {
                let told = self.told.take().is_some();
                self.failures = 0;
                if let Some(fetched) = fetched {
                    self.judge(fetched, asked || told).await;
                }
            }
            Err(error) => self.failed(&error, asked),
        }
    }

    /// Loads a text, unless it is the one that was refused before and nobody wants to hear that again.
    async fn judge(&mut self, Fetched { text, etag }: Fetched, anew: bool) {
        let digest = digest(&text);
        let doubted = self.doubted.take() == Some(digest);
        self.judged = Some(etag.clone());
        if doubted && !anew {
            return;
        }
        if !self.load(text, etag).await && !doubted {
            (self.judged, self.doubted) = (None, Some(digest));
        }
    }

    fn failed(&mut self, error: &LoadError, asked: bool) {
        self.failures = self.failures.saturating_add(1);
        let text = error.to_string();
        if error.may_pass() && self.failures < PATIENCE && !asked {
            tracing::warn!(error = text, "cannot look whether the rules changed; will look again");
        } else if asked || self.told.as_ref() != Some(&text) {
            self.rules.refused(&text);
            self.told = Some(text);
        }
    }

    /// Whether the text is in force now.
    async fn load(&self, text: String, etag: String) -> bool {
        let (rules, now) = (self.rules.clone(), self.env.clock.now());
        // The outcome is told by the source itself: log, metrics, /rules.
        let done = self.env.compute.run(move || rules.reload_text(&text, etag, now).is_ok()).await;
        done.unwrap_or_else(|| {
            self.rules.refused(&LoadError::Bug.to_string());
            false
        })
    }
}

/// What the first load of rules in S3 needs.
pub struct Loading<'a> {
    pub objects: &'a dyn ObjectStore,
    pub env: &'a Env,
    pub health: &'a Health,
    pub metrics: &'a Arc<Metrics>,
    /// What the configuration says of the built-in lists.
    pub lists: NamedLists,
}

impl Loading<'_> {
    /// Reads and checks the object; while it cannot be read for reasons that pass, readiness says why.
    ///
    /// # Errors
    ///
    /// There is no such object, it is denied, or something is wrong in it.
    pub async fn first(self, object: &RuleObject) -> Result<RuleSource, LoadError> {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
        let (mut reported, mut doubted) = (None, None);
        loop {
            self.health.starting();
            match fetch(self.objects, object, None).await {
                // Nothing is known, so that nothing can be the same.
                Ok(fetched) => {
                    let fetched = fetched.unwrap_or_default();
                    let seen = Some(digest(&fetched.text));
                    match self.load(object, fetched).await {
                        // A text can be cut on its way: read it once more.
                        Err(LoadError::Rules { .. }) if doubted != seen => doubted = seen,
                        loaded => return loaded,
                    }
                }
                Err(error) if error.may_pass() => {
                    let text = error.to_string();
                    // Each trouble once, not with every attempt.
                    if reported.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the rules cannot be read; nothing is received until they are");
                    }
                    self.health.rules_awaited(Some(text.clone()));
                    reported = Some(text);
                }
                Err(error) => return Err(error),
            }
            sleep(backoff.pause(&self.env.random)).await;
        }
    }

    async fn load(&self, object: &RuleObject, fetched: Fetched) -> Result<RuleSource, LoadError> {
        let (lists, now, metrics) = (self.lists.clone(), self.env.clock.now(), Arc::clone(self.metrics));
        let path = RulePath::Object(object.clone());
        let load = move || {
            let (rules, warnings) = parse(&path, &fetched.text, &lists, now)?;
            let source = RuleSource::start(path, lists, rules, warnings, now, metrics);
            source.bears(Some(fetched.etag));
            Ok(source)
        };
        let source = self.env.compute.run(load).await.unwrap_or_else(|| Err(LoadError::Bug))?;
        self.health.rules_awaited(None);
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use time::macros::datetime;

    use super::*;
    use crate::env::{Clock, Compute, Random, StopHandle, TaskRoot, lock};
    use crate::health::Dependency;
    use crate::ports::{ObjectBody, ObjectChunks};

    const MINUTE: Duration = Duration::from_secs(60);
    const PATH: &str = "s3://rules/monitored_events.json";

    fn rules(id: &str) -> String {
        format!(r#"[{{"id": "{id}", "severity": "LOW", "eventName": "StopLogging"}}]"#)
    }

    /// Text and entity tag of an object, or why it cannot be read.
    type Held = Result<(Vec<u8>, Option<String>), (ErrorClass, Fault)>;

    /// A bucket with one object.
    #[derive(Default)]
    struct Bucket {
        held: Mutex<Option<Held>>,
        asked: AtomicUsize,
        read: AtomicUsize,
    }

    impl Bucket {
        fn holds(&self, text: impl Into<Vec<u8>>, etag: impl Into<Option<&'static str>>) {
            *lock(&self.held) = Some(Ok((text.into(), etag.into().map(str::to_owned))));
        }

        fn fails(&self, class: ErrorClass, fault: Fault) {
            *lock(&self.held) = Some(Err((class, fault)));
        }
    }

    struct Chunks(VecDeque<Bytes>, Arc<Bucket>);

    #[async_trait]
    impl ObjectChunks for Chunks {
        async fn next(&mut self) -> Result<Option<Bytes>, PortError> {
            self.1.read.fetch_add(usize::from(self.0.len() == 1), Ordering::Relaxed);
            Ok(self.0.pop_front())
        }
    }

    #[async_trait]
    impl ObjectStore for Arc<Bucket> {
        async fn open(&self, request: &ObjectRequest) -> Result<ObjectBody, PortError> {
            assert_eq!((request.bucket.as_str(), request.key.as_str()), ("rules", "monitored_events.json"));
            self.asked.fetch_add(1, Ordering::Relaxed);
            match lock(&self.held).clone().unwrap() {
                Err((class, fault)) => {
                    let detail = format!("injected {fault:?}");
                    Err(PortError { class, fault, operation: OPERATION, detail, source: None })
                }
                Ok((text, etag)) => {
                    let chunks = text.chunks(1 + text.len() / 7).map(Bytes::copy_from_slice).collect();
                    Ok(ObjectBody { etag, length: None, chunks: Box::new(Chunks(chunks, Arc::clone(self))) })
                }
            }
        }

        async fn check(&self) -> Result<(), PortError> {
            Ok(())
        }
    }

    struct Scene {
        bucket: Arc<Bucket>,
        source: RuleSource,
        metrics: Arc<Metrics>,
        env: Env,
        _tasks: TaskRoot,
    }

    fn env(tasks: &TaskRoot) -> Env {
        Env {
            clock: Clock::starting_at(datetime!(2026-11-24 10:00 UTC)),
            random: Random::from_seed(1),
            tasks: tasks.spawner(),
            compute: Compute::Inline,
            stop: StopHandle::new().1,
        }
    }

    async fn first(bucket: &Arc<Bucket>, env: &Env, health: &Health) -> Result<(RuleSource, Arc<Metrics>), LoadError> {
        let metrics = Arc::new(Metrics::new().unwrap());
        let RulePath::Object(object) = PATH.parse().unwrap() else { panic!("no object") };
        let loading = Loading { objects: bucket, env, health, metrics: &metrics, lists: NamedLists::new() };
        Ok((loading.first(&object).await?, metrics))
    }

    fn health() -> Health {
        Health::new(Arc::new(Metrics::new().unwrap()), Duration::from_secs(20))
    }

    impl Scene {
        async fn start(etag: impl Into<Option<&'static str>>) -> Self {
            let tasks = TaskRoot::new();
            let (env, bucket) = (env(&tasks), Arc::new(Bucket::default()));
            bucket.holds(rules("first"), etag);
            let (source, metrics) = first(&bucket, &env, &health()).await.unwrap();
            let objects: Arc<dyn ObjectStore> = Arc::new(Arc::clone(&bucket));
            env.tasks.spawn(watch(source.clone(), objects, env.clone(), MINUTE));
            Self { bucket, source, metrics, env, _tasks: tasks }
        }

        fn in_force(&self) -> String {
            self.source.current().rules()[0].id.clone()
        }

        /// Reloads that worked, and that were refused.
        fn reloads(&self) -> (u64, u64) {
            let count = |outcome| self.metrics.rules_reloads.with_label_values(&[outcome]).get();
            (count("ok"), count("failed"))
        }

        fn reads(&self) -> usize {
            self.bucket.read.load(Ordering::Relaxed)
        }

        async fn looks(&self, number: usize) {
            let wanted = self.bucket.asked.load(Ordering::Relaxed) + number;
            while self.bucket.asked.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_secs(1)).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_entity_tag_is_a_reload_and_the_same_is_not_even_read() {
        let scene = Scene::start("\"1\"").await;
        assert_eq!((scene.in_force().as_str(), scene.source.status().etag.as_deref()), ("first", Some("\"1\"")));
        scene.looks(3).await;
        assert_eq!((scene.reloads(), scene.reads()), ((0, 0), 1));
        scene.bucket.holds(rules("second"), "\"2\"");
        scene.looks(1).await;
        assert_eq!((scene.in_force().as_str(), scene.source.status().etag.as_deref()), ("second", Some("\"2\"")));
        scene.looks(3).await;
        assert_eq!((scene.reloads(), scene.reads()), ((1, 0), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_entity_tag_the_text_decides() {
        let scene = Scene::start(None).await;
        scene.looks(2).await;
        assert_eq!(scene.reloads(), (0, 0));
        scene.bucket.holds(rules("second"), None);
        scene.looks(2).await;
        assert_eq!((scene.in_force().as_str(), scene.reloads()), ("second", (1, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_rules_are_refused_once_and_the_old_ones_stay() {
        let scene = Scene::start("1").await;
        let larger = usize::try_from(MAX_FILE).unwrap() + 1;
        for (wrong, said) in [
            (b"[{\"id\": 1}]".to_vec(), "the rule file s3://rules/monitored_events.json is wrong:"),
            (b"[\"\xff\"]".to_vec(), "it is no UTF-8 from byte 2 on"),
            (vec![b' '; larger], "is larger than 16 MiB"),
        ] {
            let before = scene.reloads().1;
            scene.bucket.holds(wrong, Some(said));
            scene.looks(4).await;
            assert_eq!(scene.reloads(), (0, before + 1), "{said}");
            let error = scene.source.status().error.unwrap();
            assert!(error.contains(said), "{error}");
            assert_eq!((scene.in_force().as_str(), scene.metrics.rules_last_reload_success.get()), ("first", 0));
        }
        scene.bucket.holds(rules("second"), "2");
        scene.looks(1).await;
        assert_eq!((scene.in_force().as_str(), scene.metrics.rules_last_reload_success.get()), ("second", 1));
        assert_eq!(scene.source.status().error, None);
    }

    /// An answer can announce fewer bytes than there are.
    #[tokio::test(start_paused = true)]
    async fn a_text_that_was_cut_on_its_way_is_read_again() {
        let scene = Scene::start("1").await;
        let whole = rules("second");
        scene.bucket.holds(whole.split_at(20).0, "2");
        scene.looks(1).await;
        assert_eq!((scene.in_force().as_str(), scene.reloads()), ("first", (0, 1)));
        scene.bucket.holds(whole, "2");
        scene.looks(1).await;
        assert_eq!((scene.in_force().as_str(), scene.reloads()), ("second", (1, 1)));
        scene.looks(2).await;
        assert_eq!(scene.reads(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_object_before_the_wrong_one_may_come_back() {
        let scene = Scene::start("1").await;
        scene.bucket.holds("[", "2");
        scene.looks(1).await;
        scene.bucket.holds(rules("first"), "1");
        scene.looks(1).await;
        assert_eq!((scene.source.status().error, scene.reloads()), (None, (1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_passes_soon_is_no_failed_reload() {
        let scene = Scene::start("1").await;
        scene.bucket.fails(ErrorClass::Transient, Fault::Unavailable);
        scene.looks(2).await;
        assert_eq!((scene.reloads(), scene.source.status().error), ((0, 0), None));
        scene.bucket.holds(rules("first"), "1");
        scene.looks(1).await;
        scene.bucket.fails(ErrorClass::Transient, Fault::Unavailable);
        scene.looks(2).await;
        assert_eq!(scene.reloads(), (0, 0), "only failures in a row count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_stays_is_told_once_and_its_end_too() {
        let scene = Scene::start("1").await;
        scene.bucket.fails(ErrorClass::Transient, Fault::Unavailable);
        scene.looks(8).await;
        assert_eq!((scene.reloads(), scene.metrics.rules_last_reload_success.get()), ((0, 1), 0));
        scene.bucket.holds(rules("first"), "1");
        scene.looks(1).await;
        assert_eq!((scene.reloads(), scene.source.status().error), ((1, 1), None));
        assert_eq!(scene.metrics.rules_last_reload_success.get(), 1);
        for (fault, failed) in [(Fault::Missing, 2), (Fault::Denied { action: "s3:GetObject" }, 3)] {
            scene.bucket.fails(ErrorClass::Permanent, fault);
            scene.looks(3).await;
            assert_eq!(scene.reloads(), (1, failed), "what cannot pass is told with the first look");
        }
        assert_eq!(scene.in_force(), "first");
    }

    #[tokio::test(start_paused = true)]
    async fn being_asked_looks_at_once_and_reads_whatever_the_tag_says() {
        let scene = Scene::start("1").await;
        scene.source.reload(scene.env.clock.now()).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!((scene.reads(), scene.reloads()), (2, (1, 0)), "not a minute later");
        scene.bucket.fails(ErrorClass::Transient, Fault::Unavailable);
        scene.source.reload(scene.env.clock.now()).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.reloads(), (1, 1), "whoever asks is told");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_load_waits_for_what_may_pass_and_readiness_says_why() {
        let tasks = TaskRoot::new();
        let (env, health) = (env(&tasks), health());
        for dependency in Dependency::ALL {
            health.succeeded(dependency);
        }
        for (class, fault) in [(ErrorClass::Transient, Fault::Unavailable), (ErrorClass::Config, Fault::Credentials)] {
            let bucket = Arc::new(Bucket::default());
            bucket.fails(class, fault);
            let loading = async { first(&bucket, &env, &health).await.unwrap().0.current().rules()[0].id.clone() };
            let healing = async {
                sleep(10 * MINUTE).await;
                let report = health.ready();
                assert!(!report.ok && health.live().ok, "{report:?}");
                assert!(report.checks[0].detail.starts_with("cannot read the rule file s3://rules/"), "{report:?}");
                bucket.holds(rules("late"), "1");
            };
            assert_eq!(tokio::join!(loading, healing).0, "late");
            assert!(health.ready().ok);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_load_reads_wrong_rules_a_second_time() {
        let tasks = TaskRoot::new();
        let (env, bucket) = (env(&tasks), Arc::new(Bucket::default()));
        bucket.holds("[{", "1");
        let loading = async { first(&bucket, &env, &health()).await.unwrap().0.current().rules()[0].id.clone() };
        let mending = async {
            sleep(Duration::from_millis(1)).await;
            bucket.holds(rules("whole"), "1");
        };
        assert_eq!(tokio::join!(loading, mending).0, "whole");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_load_ends_with_what_cannot_pass() {
        let tasks = TaskRoot::new();
        let (env, bucket) = (env(&tasks), Arc::new(Bucket::default()));
        for fault in [Fault::Missing, Fault::Denied { action: "s3:GetObject" }] {
            bucket.fails(ErrorClass::Permanent, fault);
            let error = first(&bucket, &env, &health()).await.unwrap_err();
            assert!(error.to_string().ends_with("(rules.path)"), "{error}");
        }
        bucket.holds("{", "1");
        assert!(first(&bucket, &env, &health()).await.unwrap_err().to_string().contains("is wrong"));
    }
}
