//! `/livez`, `/readyz`, `/metrics`, `/version`, `/rules`, from a thread and a runtime of their own, so that a busy data
//! path cannot fail a probe. No request changes anything, and no request body is read.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Report};
use crate::metrics::{Metrics, REVISION};
use crate::reload::RuleSource;
use crate::rules::RuleInfo;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last in all: it serves one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections at once. One more ends the oldest, so that slow clients cannot keep a probe out.
const MAX_CONNECTIONS: usize = 64;

/// How long to wait when no connection can be accepted (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct AdminState {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub rules: RuleSource,
}

/// The running server. Dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves on a listener that is already bound.
    pub fn start(listener: TcpListener, state: AdminState) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            // What is being answered when the process stops ends with the runtime.
            runtime.block_on(stopped.run_until_cancelled(serve(listener, router(state))));
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens: the port is known even if any was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the HTTP endpoints panicked; this is a bug, please report it");
        }
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/rules", get(rules))
        .with_state(state)
}

async fn serve(listener: tokio::net::TcpListener, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false).max_buf_size(16 * 1024);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the HTTP endpoints cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let task = tokio::spawn(async move {
            // Whatever a client did wrong is its own affair.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        });
        open.push_back(task.abort_handle());
    }
}

async fn index() -> &'static str {
    concat!(
        "trailhound ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/livez    whether the process works\n/readyz   whether it takes in work\n/metrics  figures for prometheus\n\
         /rules    the rules in force\n/version  what runs\n"
    )
}

#[derive(Serialize)]
struct Liveness {
    was_ready: bool,
    #[serde(flatten)]
    report: Report,
}

async fn livez(State(state): State<AdminState>) -> Response {
    let report = state.health.live();
    (status(&report), Json(Liveness { was_ready: state.health.was_ready(), report })).into_response()
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let report = state.health.ready();
    (status(&report), Json(report)).into_response()
}

fn status(report: &Report) -> StatusCode {
    if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], state.metrics.encode()).into_response()
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    revision: &'static str,
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION"), revision: REVISION })
}

#[derive(Serialize)]
struct Rules {
    hash: String,
    path: String,
    /// When the rules in force were loaded, RFC 3339.
    loaded_at: Option<String>,
    /// Why the last reload was refused, if it was.
    error: Option<String>,
    rules: Vec<RuleInfo>,
}

async fn rules(State(state): State<AdminState>) -> Json<Rules> {
    let (current, status) = (state.rules.current(), state.rules.status());
    Json(Rules {
        hash: current.hash().to_owned(),
        path: status.path.display().to_string(),
        loaded_at: status.loaded_at.format(&Rfc3339).ok(),
        error: status.error,
        rules: current.rules().iter().map(|rule| RuleInfo::clone(rule)).collect(),
    })
}
