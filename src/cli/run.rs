//! `trailhound run`: configuration, telemetry, rules, probes, then the daemon until it is told to stop.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::emf::Printer;
use super::{Failure, environment, runtime};
use crate::admin::{Admin, AdminState};
use crate::app::{self, Daemon};
use crate::aws;
use crate::config::{Config, Origins};
use crate::context::AlertPolicy;
use crate::env::{Clock, Compute, Env, Phase, Random, Stop, StopHandle, TaskRoot};
use crate::health::Health;
use crate::journal::Journal;
use crate::metrics::{Metrics, REVISION};
use crate::reload::{LoadError, Loading, RulePath, RuleSource};
use crate::telemetry;

/// How long to wait, after the end, for threads that are still decoding or reading a file.
const LINGER: Duration = Duration::from_millis(500);

pub(super) fn run(file: Option<&Path>) -> Result<(), Failure> {
    let (stop_handle, stop) = StopHandle::new();
    // Before everything else: from here on SIGHUP does not kill, and SIGTERM stops cleanly.
    let signals = Signals::watch(stop_handle.clone()).map_err(|error| Failure::at("cannot watch signals", error))?;
    let (config, origins) = Config::load(file, environment())?;
    telemetry::start(&config.log).map_err(|error| Failure::at("log.level", error))?;
    let runtime = runtime()?;
    let done = runtime.block_on(daemon(config, &origins, signals, stop_handle, stop));
    runtime.shutdown_timeout(LINGER);
    done
}

async fn daemon(
    config: Config,
    origins: &Origins,
    signals: Signals,
    stop_handle: StopHandle,
    stop: Stop,
) -> Result<(), Failure> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = REVISION,
        queue.url = config.queue.url,
        alerting.topic_arn = config.alerting.topic_arn,
        store.table = config.store.table,
        "starting"
    );
    let clock = Clock::starting_at(OffsetDateTime::now_utc());
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::at("cannot register the metrics", error))?);
    let health = Arc::new(Health::new(Arc::clone(&metrics), config.queue.wait));

    let loaded = Arc::new(OnceLock::new());
    match &config.rules.path {
        RulePath::File(file) => {
            let (file, lists, counted) = (file.clone(), config.rule_lists(), Arc::clone(&metrics));
            let loading = tokio::task::spawn_blocking(move || RuleSource::load(&file, lists, clock.now(), counted));
            tokio::select! {
                biased;
                // Nothing is held yet. The file may be one that never ends, such as a pipe.
                () = stop.reached(Phase::Draining) => return Ok(()),
                rules = loading => {
                    let rules = rules.map_err(|error| Failure::at("cannot load the rules", error))??;
                    let _first = loaded.set(rules);
                }
            }
        }
        // Waited for below, while probes are answered already.
        RulePath::Object(_) => health.rules_awaited(Some("not loaded yet".to_owned())),
    }

    let listener = listen(config.http.listen, origins)?;
    let journal = Arc::new(Journal::default());
    let state = AdminState {
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
        journal: Arc::clone(&journal),
        clock,
        rules: Arc::clone(&loaded),
    };
    let admin = Admin::start(listener, state).map_err(|error| Failure::at("cannot serve HTTP", error))?;
    tracing::info!(http.address = %admin.address(), "answering /livez, /readyz, /metrics, /version, /rules and, for people, /");

    let printer = Printer::start(&config.emf, Arc::clone(&metrics), clock)
        .map_err(|error| Failure::at("cannot print metrics (emf.enabled)", error))?;

    let done = async {
        let settings = aws::Settings {
            queue_url: config.queue.url.clone(),
            topic_arn: config.alerting.topic_arn.clone(),
            table: config.store.table.clone(),
            allowed_buckets: config.source.allowed_buckets.clone(),
        };
        let ports = tokio::select! {
            biased;
            () = stop.reached(Phase::Draining) => return Ok(()),
            ports = aws::connect(&settings, Arc::clone(&metrics)) => ports,
        };
        let tasks = TaskRoot::new();
        let env = Env {
            clock,
            random: Random::from_entropy(),
            tasks: tasks.spawner(),
            compute: Compute::pool(config.pipeline.decoders),
            stop,
        };
        if let RulePath::Object(object) = &config.rules.path {
            let objects = &*ports.objects;
            let lists = config.rule_lists();
            let loading = Loading { objects, env: &env, metrics: &metrics, health: &health, lists };
            tokio::select! {
                biased;
                () = env.stop.reached(Phase::Draining) => return Ok(()),
                rules = loading.first(object) => drop(loaded.set(rules?)),
            }
        }
        let Some(rules) = loaded.get().cloned() else {
            return Err(Failure::Rules(LoadError::Bug));
        };
        signals.reload(rules.clone(), clock);
        let daemon = Daemon {
            config: Arc::new(config),
            rules,
            metrics,
            health,
            journal,
            stop: stop_handle,
            policy: AlertPolicy::All,
        };
        app::run(ports, env, daemon).await;
        Ok(())
    }
    .await;
    if let Some(printer) = printer {
        printer.stop().await;
    }
    // Probes and scrapes are answered until here.
    drop(admin);
    done
}

fn listen(address: SocketAddr, origins: &Origins) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let origin = origins.get("http.listen");
        Failure::at(
            format_args!("cannot listen on {address} (http.listen, {origin})"),
            format_args!("{error}; free the port or choose another"),
        )
    })
}

/// What SIGHUP needs.
type Reload = (RuleSource, Clock);

/// Watches signals on a thread of its own, so that a busy process can still be stopped.
struct Signals(oneshot::Sender<Reload>);

impl Signals {
    /// The first SIGTERM or SIGINT drains; a second one ends the process at once.
    fn watch(stop: StopHandle) -> std::io::Result<Self> {
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (hangups, terminates, interrupts) = {
            let _inside = runtime.enter();
            (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::join!(reloads(hangups, receiver), stops(terminates, interrupts, stop));
            });
        })?;
        Ok(Self(sender))
    }

    /// From here on SIGHUP reloads; one that came before is made up for.
    fn reload(self, rules: RuleSource, clock: Clock) {
        let _ = self.0.send((rules, clock));
    }
}

/// One reload after another; signals that arrive during one are one more.
async fn reloads(mut hangups: Signal, rules: oneshot::Receiver<Reload>) {
    let Ok((rules, clock)) = rules.await else {
        return;
    };
    while hangups.recv().await.is_some() {
        let rules = rules.clone();
        // The outcome is told by the reload itself: log, metrics, /rules.
        let _ = tokio::task::spawn_blocking(move || rules.reload(clock.now())).await;
    }
}

async fn stops(mut terminates: Signal, mut interrupts: Signal, stop: StopHandle) {
    let mut stopping = false;
    loop {
        let (name, code) = tokio::select! {
            Some(()) = terminates.recv() => ("SIGTERM", 143),
            Some(()) = interrupts.recv() => ("SIGINT", 130),
            else => return,
        };
        if stopping {
            tracing::warn!(signal = name, "told to stop a second time: stopping at once");
            std::process::exit(code);
        }
        tracing::info!(signal = name, "told to stop");
        stopping = true;
        stop.advance(Phase::Draining);
    }
}
