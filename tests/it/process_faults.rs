//! The real binary behind a proxy that spoils its calls, killed, stopped and reloaded in the middle of its work.
//!
//! Every scenario ends with the same check: every matching event has exactly one item with all its rules settled, each was
//! alerted, alerts that repeat bear the same id, queue and dead-letter queue are empty. Each is drawn from a seed. A few
//! seeds run with the other tests; for more:
//!
//! ```sh
//! FAULT_SEEDS=1000..1020 cargo test --test it process_faults:: -- --ignored --test-threads 1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use trailhound::emulator::Names;

use crate::daemon::{Account, Daemon, PATIENCE, until};
use crate::process::{matching, nothing_was_lost};
use crate::proxy::{Moment, Proxy, Refusal, Trouble, outage, weather};

const ALL: &[&str] = &["s3", "sqs", "sns", "dynamodb"];

/// SQS allows no more than a thousand receives. Where processes die or SQS itself is spoiled, receives are spent.
fn many_receives(visibility: u64) -> Names {
    Names { visibility: Duration::from_secs(visibility), max_receive_count: 1000, ..Names::default() }
}

/// The seeds of a long run.
fn seeds() -> Range<u64> {
    let given = std::env::var("FAULT_SEEDS").unwrap_or_default();
    let bounds = given.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or(1000..1005)
}

/// An account, and a proxy before it.
struct Scene {
    account: Account,
    proxy: Proxy,
    endpoint: String,
}

impl Scene {
    async fn new(names: Names) -> Self {
        let account = Account::new(names).await;
        let proxy = Proxy::start(&account.emulator);
        let endpoint = proxy.endpoint();
        Self { account, proxy, endpoint }
    }

    fn daemon(&self, more: &[(&str, &str)]) -> Daemon {
        let mut settings = vec![("AWS_ENDPOINT_URL", self.endpoint.as_str())];
        settings.extend(more);
        Daemon::start(&self.account, &settings)
    }

    /// Logs of so many events each, which follow one another.
    async fn logs(&self, numbers: Range<u32>, events: u32) {
        for number in numbers {
            let events: Vec<_> = (number * events..(number + 1) * events).collect();
            self.account.log("trail-a", number, &events).await;
        }
    }

    /// The final check.
    async fn all_is_well(&self, events: Range<u32>) {
        self.account.drained().await;
        nothing_was_lost(&self.account, &matching(events)).await;
        assert_eq!((self.account.left(), self.account.dead()), (0, 0));
    }
}

// kill -9

/// A moment at which a death may hurt.
fn deadly(random: &mut fastrand::Rng) -> Moment {
    let operations = ["ReceiveMessage", "GetObject", "PutItem", "PublishBatch", "UpdateItem", "DeleteMessageBatch"];
    let one = Moment::of(random, &operations);
    let anywhere = Moment { operation: None, number: random.u64(5..60), ..one };
    // Where everything waits for the claims of the dead, calls of some operations do not come.
    Moment { at_most: 80, ..if random.u8(0..4) == 0 { anywhere } else { one } }
}

async fn deaths(seed: u64, deaths: u32, percent: u32) {
    const EVENTS: u32 = 3;
    let scene = Scene::new(many_receives(6)).await;
    scene.proxy.plan(weather(seed, percent, ALL));
    let mut random = fastrand::Rng::with_seed(seed);
    // Messages wait half a minute for the claims of the dead, and must not use up the slots meanwhile.
    let settings = [("TRAILHOUND_PIPELINE__CONCURRENCY", "40")];
    let objects = deaths * 10;
    scene.logs(0..objects, EVENTS).await;
    for death in 1..=deaths {
        let moment = deadly(&mut random);
        let sprung = scene.proxy.trap(moment);
        let daemon = scene.daemon(&settings);
        let sprung = tokio::time::timeout(PATIENCE, sprung).await;
        assert!(sprung.is_ok(), "seed {seed}, death {death}: {moment:?} does not come: {}", daemon.log());
        if random.u8(0..3) == 0 {
            // Anywhere after that, between calls or in the middle of a step.
            tokio::time::sleep(Duration::from_micros(random.u64(0..10_000))).await;
        }
        daemon.kill();
        assert_ne!(scene.account.left(), 0, "seed {seed}: work ends before death {death}");
    }
    scene.proxy.no_trap();
    let last = scene.daemon(&settings);
    // Of many deaths many claims are left, and each batch of slots waits half a minute for its own.
    let (mut left, mut within) = (u64::MAX, Instant::now() + PATIENCE);
    while left > 0 {
        let now = scene.account.left();
        if now < left {
            (left, within) = (now, Instant::now() + PATIENCE);
        }
        assert!(Instant::now() < within, "seed {seed}: {left} are left, and no fewer:\n{}", last.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.all_is_well(0..objects * EVENTS).await;
}

/// Together, because each waits half a minute for the claims of what ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_survives_two_dozen_deaths_and_stops_under_load_and_a_death_in_a_storm() {
    tokio::join!(deaths(1, 24, 0), stops(5, 3), storm(4, 10, ALL, 2));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes for each of FAULT_SEEDS"]
async fn two_hundred_deaths_over_one_backlog_lose_nothing() {
    for seed in seeds() {
        deaths(seed, 200, u32::try_from(seed % 4).unwrap() * 3).await;
    }
}

// Weather

/// One daemon, or several of which one dies and comes back, in weather of one seed.
async fn storm(seed: u64, percent: u32, services: &'static [&'static str], daemons: usize) -> (Scene, Vec<Daemon>) {
    const EVENTS: u32 = 5;
    let names = if services.contains(&"sqs") || daemons > 1 { many_receives(5) } else { Names::default() };
    let scene = Scene::new(names).await;
    scene.proxy.plan(weather(seed, percent, services));
    let mut running: Vec<_> = (0..daemons).map(|_| scene.daemon(&[])).collect();
    let objects = 40;
    scene.logs(0..objects, EVENTS).await;
    if daemons > 1 {
        let sprung = scene.proxy.trap(deadly(&mut fastrand::Rng::with_seed(seed)));
        assert!(tokio::time::timeout(PATIENCE, sprung).await.is_ok(), "seed {seed}");
        running.remove(0).kill();
        running.push(scene.daemon(&[]));
        // The same events again, in other objects.
        for number in 0..objects {
            let events: Vec<_> = (number * EVENTS..(number + 1) * EVENTS).rev().collect();
            scene.account.log("trail-b", 1000 + number, &events).await;
        }
    }
    scene.all_is_well(0..objects * EVENTS).await;
    let kinds = scene.proxy.kinds();
    assert!(kinds.len() > 5, "seed {seed}: the weather was too good: {kinds:?}");
    for daemon in &running {
        let files = daemon.metric("process_open_fds").unwrap();
        assert!(files < 100.0, "seed {seed}: {files} files are open: {}", daemon.log());
    }
    (scene, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_trouble_of_any_service_loses_nothing() {
    drop(join_all([1, 2].map(|seed| storm(seed, 15, ALL, 1))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_s3_and_sqs_never_repeats_an_alert() {
    let (scene, _daemons) = storm(3, 25, &["s3", "sqs"], 1).await;
    assert_eq!(scene.account.documents().len(), matching(0..200).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_of_sns_and_dynamodb_never_costs_a_receive() {
    let (_scene, daemons) = storm(8, 15, &["sns", "dynamodb"], 1).await;
    assert_eq!(daemons[0].metric("trailhound_messages_received_total"), Some(41.0), "{}", daemons[0].log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes for each of FAULT_SEEDS"]
async fn much_trouble_loses_nothing() {
    for seed in seeds() {
        let daemons = 1 + usize::try_from(seed % 3).unwrap();
        storm(seed, 10 + u32::try_from(seed % 30).unwrap(), ALL, daemons).await;
    }
}

// Outages

/// One service is out for some seconds, and until it refused so many calls. Nothing is lost by that, and no receive is spent.
async fn out(service: &'static str, trouble: Trouble, calls: u64) {
    let scene = Scene::new(Names { max_receive_count: 3, ..Names::default() }).await;
    let mut daemon = scene.daemon(&[("TRAILHOUND_QUEUE__WAIT", "0s")]);
    daemon.becomes_ready().await;
    until("the test event is done", async || scene.account.left() == 0).await;
    scene.proxy.plan(outage(service, trouble.clone()));
    scene.logs(0..20, 3).await;
    let what = format!("{service} is out: {trouble:?}");
    let began = Instant::now();
    until(&what, async || {
        let noticed = service == "sqs" || daemon.metric("trailhound_intake_paused") == Some(1.0);
        noticed && scene.proxy.spoiled(service) >= calls && began.elapsed() > Duration::from_secs(3)
    })
    .await;
    scene.proxy.clear();
    scene.all_is_well(0..60).await;
    assert_eq!(daemon.metric("trailhound_messages_received_total"), Some(21.0), "{what}: {}", daemon.log());
    if !matches!(trouble, Trouble::Despite(_) | Trouble::ResetAnswer { .. }) {
        assert_eq!(scene.account.documents().len(), 40, "{what}: no alert repeats");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{what}: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_any_service_loses_nothing_and_costs_no_receive() {
    let (reset, throttled) = (Trouble::ResetRequest { after: 100 }, Trouble::Instead(Refusal::Throttled));
    let broken = Trouble::Instead(Refusal::Broken);
    tokio::join!(
        out("s3", throttled.clone(), 4),
        out("sqs", reset.clone(), 4),
        out("sns", Trouble::ResetAnswer { after: 10 }, 4),
        out("dynamodb", reset, 4),
        out("s3", Trouble::Silent, 2),
        out("sqs", throttled, 4),
        out("sns", Trouble::Silent, 2),
        out("dynamodb", broken, 4),
    );
}

// SIGTERM

/// Stops under load, one after another, in trouble of everything but SQS; every second one while a service is silent.
async fn stops(seed: u64, rounds: u32) {
    const EVENTS: u32 = 3;
    const DEADLINE: Duration = Duration::from_secs(3);
    // What is not given back is not visible again within this test.
    let scene = Scene::new(many_receives(600)).await;
    let settings = [("TRAILHOUND_SHUTDOWN__DEADLINE", "3s"), ("TRAILHOUND_QUEUE__WAIT", "1s")];
    let mut random = fastrand::Rng::with_seed(seed);
    let objects = rounds * 15;
    scene.logs(0..objects, EVENTS).await;
    for round in 0..rounds {
        scene.proxy.plan(weather(seed + u64::from(round), 10, &["s3", "sns", "dynamodb"]));
        let sprung = scene.proxy.trap(Moment::of(&mut random, &["GetObject", "PutItem", "PublishBatch", "UpdateItem"]));
        let mut daemon = scene.daemon(&settings);
        assert!(tokio::time::timeout(PATIENCE, sprung).await.is_ok(), "seed {seed}, round {round}: {}", daemon.log());
        if round % 2 == 1 {
            // Bodies that come for half a minute, or nothing at all.
            let slow = Trouble::Slow { piece: 10, pause: Duration::from_millis(600) };
            let troubles =
                [("s3", slow), ("s3", Trouble::Silent), ("sns", Trouble::Silent), ("dynamodb", Trouble::Silent)];
            let (service, trouble) = troubles[random.usize(0..troubles.len())].clone();
            scene.proxy.plan(outage(service, trouble));
        }
        daemon.signal("TERM");
        let told = Instant::now();
        assert_eq!(daemon.ended().await.code(), Some(0), "seed {seed}, round {round}: {}", daemon.log());
        let took = told.elapsed();
        assert!(took < DEADLINE + Duration::from_secs(2), "seed {seed}, round {round}: {took:?}: {}", daemon.log());
        let counts = scene.account.emulator.queue_counts(&scene.account.made.queue_url).unwrap();
        assert_eq!(counts.in_flight, 0, "seed {seed}, round {round}: {}", daemon.log());
    }
    scene.proxy.no_trap();
    scene.proxy.clear();
    let _last = scene.daemon(&[]);
    scene.all_is_well(0..objects * EVENTS).await;
}

/// Nothing can be given back then, and what is held is visible again when its timeout runs out.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_queue_does_not_answer_ends_in_time() {
    let scene = Scene::new(many_receives(3)).await;
    let settings = [("TRAILHOUND_SHUTDOWN__DEADLINE", "3s")];
    scene.logs(0..10, 6).await;
    let mut daemon = scene.daemon(&settings);
    until("it works", async || scene.proxy.calls("PublishBatch") > 0).await;
    scene.proxy.plan(outage("sqs", Trouble::Silent));
    daemon.signal("TERM");
    let told = Instant::now();
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}: {}", told.elapsed(), daemon.log());
    scene.proxy.clear();
    let next = scene.daemon(&settings);
    scene.all_is_well(0..60).await;
    assert!(next.metric("trailhound_messages_received_total") >= Some(1.0), "what was held is received again");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes for each of FAULT_SEEDS"]
async fn many_stops_under_load_end_in_time_and_give_back_the_rest_at_once() {
    for seed in seeds() {
        stops(seed, 40).await;
    }
}

// SIGHUP

/// Both files match the same events by two rules each; one generation's rules share its name.
fn generation(name: &str) -> String {
    let rule = |id: &str, source: &str, event: &str| {
        json!({"id": format!("{id}-{name}"), "description": "A rule", "severity": "HIGH",
               "eventSource": source, "eventName": event})
    };
    json!({"events": [
        rule("stop", "cloudtrail.amazonaws.com", "StopLogging"), rule("trail", "cloudtrail.amazonaws.com", "*"),
        rule("create", "iam.amazonaws.com", "CreateAccessKey"), rule("iam", "iam.amazonaws.com", "*"),
    ]})
    .to_string()
}

async fn hangups(seed: u64, rounds: u32) {
    let scene = Scene::new(Names::default()).await;
    let rules = scene.account.rules();
    let bad = [
        String::new(),
        "{\"events\": [".to_owned(),
        "{\"events\": [{\"id\": \"x\"}]}".to_owned(),
        generation("red").replace("HIGH", "SEVERE"),
        "\u{0}".repeat(4096),
    ];
    let put = |text: &str| {
        let fresh = rules.with_extension("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &rules).unwrap();
    };
    put(&generation("red"));
    let mut daemon = scene.daemon(&[]);
    daemon.becomes_ready().await;
    let hash = |daemon: &Daemon| daemon.json("/rules")["hash"].as_str().unwrap().to_owned();
    let mut generations: BTreeMap<&str, String> = [("red", hash(&daemon))].into();
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut good, mut refused, mut now) = (0, 0, "red");
    let mut objects = 0;
    for round in 0..rounds {
        // Load all the while: there is always something in work.
        if scene.account.left() < 5 {
            scene.logs(objects..objects + 10, 6).await;
            objects += 10;
        }
        if round % 2 == 0 {
            now = if now == "red" { "blue" } else { "red" };
            put(&generation(now));
            good += 1;
        } else {
            put(&bad[random.usize(0..bad.len())]);
            refused += 1;
        }
        daemon.signal("HUP");
        let counted = |outcome| {
            let name = format!("trailhound_rules_reloads_total{{outcome=\"{outcome}\"}}");
            daemon.metric(&name).unwrap_or(0.0)
        };
        let deadline = Instant::now() + PATIENCE;
        while (counted("ok"), counted("failed")) != (f64::from(good), f64::from(refused)) {
            assert!(Instant::now() < deadline, "seed {seed}, round {round}: {}", daemon.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let known = generations.entry(now).or_insert_with(|| hash(&daemon));
        assert_eq!(*known, hash(&daemon), "seed {seed}, round {round}: the rules in force");
    }
    scene.all_is_well(0..objects * 6).await;
    assert!(objects >= 20, "there was hardly any load: {objects} objects");
    let mut by_object: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in scene.account.items().await {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let hash = text(&item["RuleSetHash"]["S"]);
        let (color, _) = generations.iter().find(|(_, known)| **known == hash).unwrap();
        let rules: Vec<_> = item["Rules"]["SS"].as_array().unwrap().iter().map(text).collect();
        assert!(rules.len() == 2 && rules.iter().all(|rule| rule.ends_with(color)), "{item}");
        by_object.entry(item["Source"]["M"]["Key"]["S"].to_string()).or_default().insert(hash);
    }
    assert!(by_object.len() >= 20 && by_object.values().all(|hashes| hashes.len() == 1), "{by_object:?}");
    assert_eq!(scene.account.documents().len(), matching(0..objects * 6).len());
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_reloads_under_load_swap_the_rules_whole() {
    hangups(6, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes for each of FAULT_SEEDS"]
async fn a_thousand_reloads_under_load_swap_the_rules_whole() {
    for seed in seeds() {
        hangups(seed, 1000).await;
    }
}

/// Rules in S3 change while answers are cut, late, or errors: each new object comes in force.
#[tokio::test(flavor = "multi_thread")]
async fn rules_in_s3_come_in_force_in_any_trouble() {
    let scene = Scene::new(Names::default()).await;
    let bucket = &scene.account.made.bucket;
    let put =
        async |name: &str| scene.account.emulator.put_object(bucket, "rules.json", generation(name)).await.unwrap();
    put("red").await;
    let path = format!("s3://{bucket}/rules.json");
    let settings = [
        ("SECURITY_EVENTS_PATH", ""),
        ("TRAILHOUND_RULES__PATH", path.as_str()),
        ("TRAILHOUND_RULES__POLL_INTERVAL", "1s"),
    ];
    let mut daemon = scene.daemon(&settings);
    daemon.becomes_ready().await;
    // The first read of each object announces too little, and some later ones go wrong, too.
    let cut = Arc::new(AtomicBool::new(false));
    let (cuts, later) = (Arc::clone(&cut), weather(9, 40, &["s3"]));
    scene.proxy.plan(Box::new(move |call| {
        let first = call.operation == "GetObject" && cuts.swap(false, Ordering::Relaxed);
        if first { Some(Trouble::WrongLength(-50)) } else { later(call) }
    }));
    for name in ["blue", "green", "white"] {
        put(name).await;
        cut.store(true, Ordering::Relaxed);
        until(name, async || {
            daemon.json("/rules")["rules"][0]["id"].as_str().is_some_and(|it| it == format!("stop-{name}"))
        })
        .await;
    }
}

// Credentials

/// They would be good for decades, as a role's are for hours.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_revoked_before_their_end_are_replaced() {
    let scene = Scene::new(many_receives(5)).await;
    let folder = scene.account.folder.path();
    let keys = folder.join("keys.json");
    let rotate = |id: &str| {
        let text = json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": "example",
                          "Expiration": "2099-12-31T23:59:59Z"});
        let fresh = keys.with_extension("fresh");
        std::fs::write(&fresh, text.to_string()).unwrap();
        std::fs::rename(&fresh, &keys).unwrap();
    };
    let profile = folder.join("profile");
    std::fs::write(&profile, format!("[default]\ncredential_process = /bin/cat {}\n", keys.display())).unwrap();
    rotate("AKIAFIRSTEXAMPLE0001");
    let settings = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONFIG_FILE", profile.to_str().unwrap()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    let mut daemon = scene.daemon(&settings);
    daemon.becomes_ready().await;
    scene
        .proxy
        .plan(Box::new(|call| (call.key == "AKIAFIRSTEXAMPLE0001").then_some(Trouble::Instead(Refusal::Revoked))));
    scene.logs(0..10, 6).await;
    until("it says that its credentials are refused", async || {
        daemon.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains("look at the credentials"))
    })
    .await;
    rotate("AKIASECONDEXAMPLE002");
    scene.all_is_well(0..60).await;
    daemon.becomes_ready().await;
}

// A queue that appears late

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_appears_late_is_waited_for() {
    let scene = Scene::new(Names::default()).await;
    let emulator = &scene.account.emulator;
    let url = scene.account.made.queue_url.replace("/trailhound", "/not-made-yet");
    // At first there is not even a connection, then no queue.
    scene.proxy.plan(outage("sqs", Trouble::ResetRequest { after: 0 }));
    let daemon = scene.daemon(&[("SQS_QUEUE_URL", &url)]);
    let not_ready = async |words: &str| {
        until(words, async || {
            daemon.get("/readyz").is_some_and(|(status, body)| status == 503 && body.contains(words))
        })
        .await;
    };
    not_ready("no answer").await;
    scene.proxy.plan(weather(7, 10, ALL));
    not_ready("not-made-yet does not exist").await;
    assert_eq!(scene.proxy.calls("ReceiveMessage"), 0);
    let redrive = json!({ "deadLetterTargetArn": emulator.queue_arn(&Names::default().dead_letter_queue),
                          "maxReceiveCount": 1000 });
    let attributes = json!({ "VisibilityTimeout": "5", "RedrivePolicy": redrive.to_string() });
    assert_eq!(emulator.create_queue("not-made-yet", attributes).await.unwrap(), url);
    emulator.notify(&scene.account.made.bucket, "not-made-yet", "", "").await.unwrap();
    scene.logs(0..10, 6).await;
    until("the late queue is empty", async || emulator.queue_counts(&url).unwrap().total() == 0).await;
    nothing_was_lost(&scene.account, &matching(0..60)).await;
    assert_eq!(scene.account.dead(), 0);
}

// A clock that is wrong

/// Messages take longer than their visibility, and the services' clock is elsewhere: leases and claims are kept by the
/// daemon's own.
async fn with_a_clock_ahead(by: time::Duration) {
    let scene =
        Scene::new(Names { visibility: Duration::from_secs(6), max_receive_count: 1, ..Names::default() }).await;
    scene.proxy.clock_ahead(by);
    scene.proxy.plan(Box::new(|call| (call.operation == "GetObject").then_some(Trouble::Late(Duration::from_secs(8)))));
    let mut daemon = scene.daemon(&[]);
    scene.logs(0..10, 6).await;
    scene.all_is_well(0..60).await;
    assert_eq!(daemon.metric("trailhound_messages_received_total"), Some(11.0), "{by}: {}", daemon.log());
    assert_eq!(daemon.metric("trailhound_leases_lost_total"), Some(0.0));
    assert!(daemon.metric("trailhound_lease_extensions_total{outcome=\"ok\"}") >= Some(10.0));
    assert!(daemon.metric("trailhound_message_age_seconds_sum") >= Some(0.0));
    assert_eq!(scene.account.documents().len(), 40);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.code(), Some(0), "{by}: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_do_not_depend_on_the_clock_of_the_services() {
    tokio::join!(with_a_clock_ahead(time::Duration::minutes(90)), with_a_clock_ahead(time::Duration::minutes(-90)));
}

/// The final check can fail.
#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "left: {}")]
async fn the_final_check_sees_an_event_that_is_missing() {
    let scene = Scene::new(Names::default()).await;
    nothing_was_lost(&scene.account, &matching(0..6)).await;
}
