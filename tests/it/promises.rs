//! What the promises say and do not say, one named test for each; `docs/SEMANTICS.md` names them, and is checked here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trailhound::rules::Mode;

use crate::fakes::{Trouble, lock};
use crate::faults::{Scene, alerts, drained};
use crate::sim::{event_id, rules_on_trial, through_eventbridge};

/// The rules are reloaded while the first half of an object waits for SNS.
#[tokio::test(start_paused = true)]
async fn one_message_is_evaluated_under_one_rule_set() {
    let scene = Scene::on_trial(None);
    let mut waits = true;
    scene.world.trouble(move |operation| {
        let slow = operation == "sns:PublishBatch" && std::mem::take(&mut waits);
        slow.then_some(Trouble::Slow(Duration::from_secs(8)))
    });
    // More than the decoder gives in one step.
    let events: Vec<u32> = (0..90).map(|at| at * 3 + 2).collect();
    scene.deliver(1, &events);
    scene.until("the first half waits", 30, |world| !lock(&world.table).is_empty()).await;
    assert!(lock(&scene.world.table).len() < 90, "the other half is still to come");
    scene.reload(Some(Mode::Alert));
    scene.until("an empty queue", 120, drained).await;
    {
        let table = lock(&scene.world.table);
        let hashes: BTreeSet<_> = table.values().map(|row| row.item.rule_set_hash.clone()).collect();
        assert_eq!((table.len(), hashes.len()), (90, 1), "{hashes:?}");
        assert!(table.values().all(|row| !row.state.rules.contains("any-key")), "a rule of the new set matched");
    }
    // The next message is evaluated under the new one.
    scene.world.send(through_eventbridge(302));
    scene.until("an empty queue", 60, drained).await;
    assert!(scene.state(302).rules.contains("any-key"));
}

/// A process dies with a claim, and by the time its message comes back the rule is gone: what matches nothing is not
/// looked up, so the item keeps a rule that was never alerted.
#[tokio::test(start_paused = true)]
async fn a_match_of_a_rule_that_was_removed_before_the_redelivery_stays_unsettled() {
    let mut scene = Scene::start();
    scene.dies_in("sns:PublishBatch");
    scene.world.send(through_eventbridge(1));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    let none = r#"[{"id": "other", "severity": "LOW", "description": "Another", "eventName": "RunInstances"}]"#;
    scene.revive_with(none);
    scene.until("an empty queue", 300, drained).await;
    let state = scene.state(1);
    assert!(state.rules.contains("trail-stopped") && state.settled.is_empty(), "{state:?}");
    assert_eq!(alerts(&scene.world), 0);
    // The rule comes back, and so does the event: it is told after all.
    std::fs::write(scene.rules.path(), rules_on_trial(None)).unwrap();
    scene.process.reload();
    scene.deliver(1, &[1]);
    scene.until("an empty queue", 300, drained).await;
    assert_eq!(scene.told(), ["trail-stopped"]);
}

/// SNS accepted an alert, and the process died before that was marked: whoever takes the claim over tells the alert
/// again, under the same id.
#[tokio::test(start_paused = true)]
async fn a_death_between_publish_and_mark_repeats_the_alert_under_its_id() {
    let mut scene = Scene::start();
    scene.dies_in("dynamodb:UpdateItem#mark");
    scene.world.send(through_eventbridge(1));
    scene.until("a death", 60, |_| !scene.process.lives()).await;
    assert_eq!(alerts(&scene.world), 1);
    scene.revive(None);
    scene.until("an empty queue", 300, drained).await;
    let topic = lock(&scene.world.topic);
    let ids: BTreeSet<_> = topic.iter().map(|it| it.alert.alert_id.clone()).collect();
    assert_eq!((topic.len(), ids.len()), (2, 1));
    assert!(topic.iter().all(|it| it.document["event_id"] == event_id(1)));
}

/// Every sentence of `docs/SEMANTICS.md` names the tests that hold it, and each of them exists.
#[test]
fn every_sentence_of_the_semantics_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let (mut wrong, mut sentences) = (Vec::new(), 0);
    for item in items(&text) {
        sentences += 1;
        let names: Vec<_> = item.split('`').skip(1).step_by(2).filter(|it| it.contains("::")).collect();
        if names.is_empty() {
            wrong.push(format!("names no test: {item}"));
        }
        wrong.extend(names.into_iter().filter(|name| !exists(root, name)).map(|name| format!("no such test: {name}")));
    }
    assert!(sentences > 30, "only {sentences} sentences were found");
    assert_eq!(wrong, Vec::<String>::new());
}

/// The items of all lists, each on one line.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(first) = line.strip_prefix("- ") {
            items.push(first.to_owned());
            inside = true;
        } else if inside && line.starts_with("  ") {
            let item = items.last_mut().unwrap();
            item.push(' ');
            item.push_str(line.trim());
        } else {
            inside = false;
        }
    }
    items
}

/// Whether a test of this name, such as `cargo test` prints it, is in the sources.
fn exists(root: &Path, name: &str) -> bool {
    let (module, test) = name.rsplit_once("::").unwrap();
    let path: PathBuf = module.split("::").take_while(|it| *it != "tests").collect();
    let files = ["tests/it", "src"].into_iter().flat_map(|folder| {
        let base = root.join(folder).join(&path);
        [
            base.with_extension("rs"),
            base.join("mod.rs"),
            base.join("tests.rs"),
            root.join(folder).join(with_parent(&path)),
        ]
    });
    files.filter_map(|file| std::fs::read_to_string(file).ok()).any(|text| {
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        lines.iter().enumerate().any(|(at, line)| {
            let line = line.trim_start_matches("async ");
            let is_it = line
                .strip_prefix("fn ")
                .is_some_and(|rest| rest.strip_prefix(test).is_some_and(|rest| rest.starts_with('(')));
            let attributes = &lines[at.saturating_sub(4)..at];
            is_it && attributes.iter().any(|it| it.starts_with("#[test]") || it.starts_with("#[tokio::test"))
        })
    })
}

/// Tests of a module may stand in modules inside its file, such as `contract::fakes`.
fn with_parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).with_extension("rs")
}
