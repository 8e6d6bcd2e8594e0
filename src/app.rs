//! `run(Ports, Env)`: the daemon, from the first check to the last message given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::context::{AlertPolicy, Context};
use crate::deliver::InWork;
use crate::env::{Env, Phase, StopHandle};
use crate::health::{Dependency, Health};
use crate::journal::Journal;
use crate::limit::Limit;
use crate::metrics::Metrics;
use crate::poller::{Slots, poll};
use crate::ports::{PortError, Ports, QueueAttributes};
use crate::reload::{self, RuleSource};
use crate::retry::{Backoff, call};
use crate::rules::Matchers;
use crate::settle::Deleter;

/// How long before the deadline held messages are given back; half of it, if it is short.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// How often the queue's depth is read.
const SURVEY: Duration = Duration::from_secs(15);
/// How soon failing dependencies are checked; while they go on failing, less and less often, down to [`CHECK_LONGEST`].
const CHECK: Duration = Duration::from_secs(5);
const CHECK_LONGEST: Duration = Duration::from_secs(30);
/// How often it is looked whether exceptions ended.
const EXCEPTIONS: Duration = Duration::from_secs(60);
/// Used where the queue says zero, which nobody could work with.
const VISIBILITY: Duration = Duration::from_secs(30);

/// What the daemon is made of, besides its ports and its world.
#[derive(Clone)]
pub struct Daemon {
    pub config: Arc<Config>,
    pub rules: RuleSource,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub journal: Arc<Journal>,
    /// Moves the process on to giving back when the drain's time is up.
    pub stop: StopHandle,
    pub policy: AlertPolicy,
}

/// Runs until `env.stop` says so: ends after everything held was settled or given back.
pub async fn run(ports: Ports, env: Env, daemon: Daemon) {
    let Daemon { config, rules, metrics, health, journal, stop, policy } = daemon;
    let max_per_minute = config.alerting.max_per_minute;
    let context = Context {
        ports,
        env,
        config,
        rules,
        metrics,
        health,
        journal,
        in_work: InWork::default(),
        matchers: Matchers::default(),
        limit: Arc::new(Limit::new(max_per_minute)),
        policy,
    };
    let (objects, interval) = (Arc::clone(&context.ports.objects), context.config.rules.poll_interval);
    context.env.tasks.spawn(reload::watch(context.rules.clone(), objects, context.env.clone(), interval));
    let Some(attributes) = reach_everything(&context).await else {
        context.health.stopping();
        return;
    };
    let visibility = visibility(&context, attributes);
    tracing::info!(
        queue.visibility_seconds = visibility.as_secs(),
        queue.max_receive_count = attributes.max_receive_count,
        rules.count = context.rules.current().rules().len(),
        "receiving"
    );
    context.env.tasks.spawn(survey(context.clone()));
    context.env.tasks.spawn(check_failing(context.clone()));
    context.env.tasks.spawn(watch_exceptions(context.clone()));

    let slots = Slots::new(context.config.pipeline.concurrency);
    let (deleter, all_deleted) = Deleter::start(&context);
    let mut pollers = Vec::new();
    for number in 0..context.config.queue.pollers {
        let (running, ended) = tokio::sync::oneshot::channel::<()>();
        let work = poll(context.clone(), number, slots.clone(), deleter.clone(), visibility);
        context.env.tasks.spawn(async move {
            work.await;
            drop(running);
        });
        pollers.push(ended);
    }

    context.env.stop.reached(Phase::Draining).await;
    context.health.stopping();
    tracing::info!("stopping: no more messages are received, those held are finished");
    let deadline = context.config.shutdown.deadline;
    let draining = async {
        for poller in pollers {
            let _ended = poller.await;
        }
        slots.all_free().await;
        drop(deleter);
        all_deleted.wait().await;
    };
    tokio::pin!(draining);
    let give_back = GIVE_BACK.min(deadline / 2);
    if timeout(deadline.saturating_sub(give_back), &mut draining).await.is_err() {
        tracing::warn!("the time to finish is over; what is held is given back");
        stop.give_back(give_back);
        if timeout(give_back, &mut draining).await.is_err() {
            tracing::warn!("not everything could be given back; it is visible again when its timeout runs out");
        }
    }
    tracing::info!("stopped");
}

/// Asks queue, store, publisher and object store until each answered once: nothing is received before. `None` if the
/// process is to stop first.
async fn reach_everything(context: &Context) -> Option<QueueAttributes> {
    let ports = &context.ports;
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
    let mut reported: Vec<String> = Vec::new();
    loop {
        context.health.starting();
        let asking = async {
            tokio::join!(
                call("sqs:GetQueueAttributes", ports.queue.attributes()),
                call("dynamodb:DescribeTable", ports.store.check()),
                call("sns:GetTopicAttributes", ports.publisher.check()),
                call("s3:HeadBucket", ports.objects.check()),
            )
        };
        let (queue, store, publisher, objects) = tokio::select! {
            biased;
            () = context.env.stop.reached(Phase::Draining) => return None,
            answers = asking => answers,
        };
        let mut errors = Vec::new();
        let attributes = note(context, Dependency::Queue, queue, &mut errors);
        note(context, Dependency::Store, store, &mut errors);
        note(context, Dependency::Publisher, publisher, &mut errors);
        note(context, Dependency::Objects, objects, &mut errors);
        if errors.is_empty() {
            return attributes;
        }
        // Each trouble once, not with every attempt.
        for error in &errors {
            if !reported.contains(error) {
                tracing::error!(error, "not everything is reachable; nothing is received until it is");
            }
        }
        reported = errors;
        tokio::select! {
            biased;
            () = context.env.stop.reached(Phase::Draining) => return None,
            () = sleep(backoff.pause(&context.env.random)) => {}
        }
    }
}

fn note<T>(
    context: &Context,
    dependency: Dependency,
    result: Result<T, PortError>,
    errors: &mut Vec<String>,
) -> Option<T> {
    match result {
        Ok(value) => {
            context.health.succeeded(dependency);
            Some(value)
        }
        Err(error) => {
            context.failed(dependency, &error);
            errors.push(error.to_string());
            None
        }
    }
}

fn visibility(context: &Context, attributes: QueueAttributes) -> Duration {
    if attributes.max_receive_count.is_none() {
        tracing::warn!("the queue has no redrive policy: a message that cannot be read comes back for ever");
    }
    if let Some(configured) = context.config.queue.visibility {
        return configured;
    }
    if attributes.visibility_timeout.is_zero() {
        tracing::warn!("the queue's visibility timeout is 0; {} s are used (queue.visibility)", VISIBILITY.as_secs());
        return VISIBILITY;
    }
    attributes.visibility_timeout
}

/// Reads the queue's depth now and then.
async fn survey(context: Context) {
    loop {
        if let Ok(attributes) = call("sqs:GetQueueAttributes", context.ports.queue.attributes()).await {
            let depth = &context.metrics.queue_messages;
            for (state, count) in
                [("visible", attributes.visible), ("in_flight", attributes.in_flight), ("delayed", attributes.delayed)]
            {
                depth.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        sleep(SURVEY).await;
    }
}

/// Exceptions end while the process runs.
async fn watch_exceptions(context: Context) {
    loop {
        context.rules.tell_expired(context.env.clock.now());
        sleep(EXCEPTIONS).await;
    }
}

/// Asks failing dependencies whether they work again. Where held work repeats its own call, that decides; only for
/// objects an answer is asked for all the same, since one object can fail for ever.
async fn check_failing(context: Context) {
    let mut backoff = Backoff::new(CHECK, CHECK_LONGEST);
    loop {
        sleep(backoff.pause(&context.env.random)).await;
        // Asked also where nobody probes, so that its metric is true.
        let _ready = context.health.ready();
        let failing = context.health.failing();
        if failing.is_empty() {
            backoff = Backoff::new(CHECK, CHECK_LONGEST);
        }
        for dependency in failing {
            let ports = &context.ports;
            let waiting = context.health.waiting(dependency) > 0;
            let answer = match dependency {
                Dependency::Objects => call("s3:HeadBucket", ports.objects.check()).await,
                Dependency::Publisher if !waiting => call("sns:GetTopicAttributes", ports.publisher.check()).await,
                Dependency::Store if !waiting => call("dynamodb:DescribeTable", ports.store.check()).await,
                Dependency::Queue if !waiting => {
                    call("sqs:GetQueueAttributes", ports.queue.attributes()).await.map(|_| ())
                }
                Dependency::Queue | Dependency::Publisher | Dependency::Store => continue,
            };
            if answer.is_ok() {
                context.health.checked(dependency);
            }
        }
    }
}
