//! The status page at `/`, and `/livez`, `/readyz`, `/metrics`, `/version`, `/rules`, from a thread and a runtime of their own, so that a busy data
//! path cannot fail a probe. No request changes anything, and no request body is read.

mod page;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::env::{Clock, lock};
use crate::health::{Health, Report};
use crate::journal::{self, Journal};
use crate::metrics::{Metrics, REVISION};
use crate::noise::{Noise, noise};
use crate::reload::RuleSource;
use crate::rules::{Diagnostic, RuleInfo};

/// What a client may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How long it may take to send the head of its request.
    head: Duration,
    /// How long its connection may last in all: it serves one request.
    connection: Duration,
    /// Connections at once. One more ends the oldest, so that slow clients cannot keep a probe out.
    connections: usize,
}

const LIMITS: Limits = Limits { head: Duration::from_secs(5), connection: Duration::from_secs(15), connections: 64 };

/// How long to wait when no connection can be accepted (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the pages show.
#[derive(Clone, Debug)]
pub struct AdminState {
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub journal: Arc<Journal>,
    pub clock: Clock,
    /// Unset until the rules are loaded.
    pub rules: Arc<OnceLock<RuleSource>>,
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
        Self::start_within(LIMITS, listener, state)
    }

    fn start_within(limits: Limits, listener: TcpListener, state: AdminState) -> io::Result<Self> {
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
            runtime.spawn(sample(state.clone()));
            runtime.block_on(stopped.run_until_cancelled(serve(limits, listener, router(state))));
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
        .with_state(Pages { state, last_rules: Arc::default() })
}

#[derive(Clone)]
struct Pages {
    state: AdminState,
    /// The page of the rules as it was last written. It can be megabytes, and clients that do not read it share it.
    last_rules: Arc<Mutex<Bytes>>,
}

async fn sample(state: AdminState) {
    loop {
        state.journal.sample(&state.metrics);
        tokio::time::sleep(journal::SAMPLE).await;
    }
}

async fn serve(limits: Limits, listener: tokio::net::TcpListener, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).keep_alive(false).max_buf_size(16 * 1024);
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
        if open.len() >= limits.connections
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let task = tokio::spawn(async move {
            // Whatever a client did wrong is its own affair.
            let _ = tokio::time::timeout(limits.connection, connection).await;
        });
        open.push_back(task.abort_handle());
    }
}

async fn index(State(Pages { state, .. }): State<Pages>) -> Response {
    let rules = state.rules.get().map(|source| {
        let (current, status) = (source.current(), source.status());
        let row = |rule: &Arc<RuleInfo>| page::RuleRow {
            id: rule.id.clone(),
            severity: rule.severity,
            mode: rule.mode.as_str(),
            matches: state.metrics.matches.with_label_values(&[&rule.id, rule.severity.as_str()]).get(),
        };
        page::RulesView {
            location: source.location().to_string(),
            hash: current.hash().to_owned(),
            loaded_at: status.loaded_at,
            error: status.error,
            warnings: status.warnings.len(),
            rows: current.rules().iter().map(row).collect(),
        }
    });
    let view = page::View {
        now: state.clock.now(),
        version: env!("CARGO_PKG_VERSION"),
        ready: state.health.ready(),
        live: state.health.live(),
        lately: state.journal.lately(),
        sample: state.journal.read(&state.metrics),
        rules,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::POLICY.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page::render(&view).into_string()).into_response()
}

#[derive(Serialize)]
struct Liveness {
    was_ready: bool,
    #[serde(flatten)]
    report: Report,
}

async fn livez(State(Pages { state, .. }): State<Pages>) -> Response {
    let report = state.health.live();
    (status(&report), Json(Liveness { was_ready: state.health.was_ready(), report })).into_response()
}

async fn readyz(State(Pages { state, .. }): State<Pages>) -> Response {
    let report = state.health.ready();
    (status(&report), Json(report)).into_response()
}

fn status(report: &Report) -> StatusCode {
    if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(Pages { state, .. }): State<Pages>) -> Response {
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
struct RulesPage {
    hash: String,
    path: String,
    /// The entity tag of the object that the rules in force were read from, where they are not a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// When the rules in force were loaded, RFC 3339.
    loaded_at: Option<String>,
    /// Why the last reload was refused, if it was.
    error: Option<String>,
    /// What is probably not meant in the rules in force.
    warnings: Vec<Diagnostic>,
    rules: Vec<RuleInfo>,
    /// What each rule did since the process began.
    noise: Vec<Noise>,
}

async fn rules(State(Pages { state, last_rules }): State<Pages>) -> Response {
    let Some(source) = state.rules.get() else {
        let why = serde_json::json!({ "error": "the rules are not loaded yet: /readyz says why" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response();
    };
    let (current, status) = (source.current(), source.status());
    let page = RulesPage {
        hash: current.hash().to_owned(),
        path: source.location().to_string(),
        etag: status.etag,
        loaded_at: status.loaded_at.format(&Rfc3339).ok(),
        error: status.error,
        warnings: status.warnings,
        rules: current.rules().iter().map(|rule| RuleInfo::clone(rule)).collect(),
        noise: noise(&current, &state.metrics),
    };
    let Ok(text) = serde_json::to_vec(&page) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut last = lock(&last_rules);
    if *last != text {
        *last = text.into();
    }
    ([(header::CONTENT_TYPE, "application/json")], last.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use serde_json::Value;
    use time::macros::datetime;

    use super::*;
    use crate::health::Dependency;
    use crate::reload::RulePath;
    use crate::rules::RuleSet;

    const RULES: &str = r#"{"events": [{
        "id": "trail-stopped", "description": "A trail was stopped", "severity": "CRITICAL",
        "eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging"
    }]}"#;

    const PATIENT: Limits =
        Limits { head: Duration::from_mins(10), connection: Duration::from_mins(10), connections: 64 };

    struct Running {
        admin: Admin,
        state: AdminState,
    }

    fn start(limits: Limits) -> Running {
        let metrics = Arc::new(Metrics::new().unwrap());
        let loaded_at = datetime!(2026-03-01 12:00 UTC);
        let rules = RuleSet::parse(RULES).unwrap();
        let path = RulePath::File("no-such-file.json".into());
        let rules = RuleSource::new(path, rules, loaded_at, Arc::clone(&metrics));
        let health = Arc::new(Health::new(Arc::clone(&metrics), Duration::from_secs(20)));
        let rules = Arc::new(OnceLock::from(rules));
        let state =
            AdminState { health, metrics, journal: Arc::default(), clock: Clock::starting_at(loaded_at), rules };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Running { admin: Admin::start_within(limits, listener, state.clone()).unwrap(), state }
    }

    impl Running {
        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.admin.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        }

        /// Head and body of an answer.
        fn ask(&self, method: &str, path: &str) -> (String, String) {
            let mut stream = self.connect();
            write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        }

        fn get(&self, path: &str) -> (u16, Value) {
            let (head, body) = self.ask("GET", path);
            (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(&body).unwrap())
        }
    }

    #[test]
    fn a_process_that_reached_nothing_yet_is_alive_and_not_ready() {
        let running = start(LIMITS);
        let (status, livez) = running.get("/livez");
        assert_eq!((status, &livez["ok"], &livez["was_ready"]), (200, &true.into(), &false.into()));
        let (status, readyz) = running.get("/readyz");
        assert_eq!((status, &readyz["ok"]), (503, &false.into()));
        let queue = readyz["checks"].as_array().unwrap().iter().find(|check| check["name"] == "queue").unwrap();
        assert_eq!((&queue["ok"], &queue["detail"]), (&false.into(), &"not reached yet".into()));
    }

    #[test]
    fn it_is_ready_once_everything_was_reached_and_remembers_that_while_it_stops() {
        let running = start(LIMITS);
        for dependency in Dependency::ALL {
            running.state.health.succeeded(dependency);
        }
        assert_eq!(running.get("/readyz").0, 200);
        running.state.health.stopping();
        assert_eq!(running.get("/readyz").0, 503);
        assert_eq!(running.get("/livez").1["was_ready"], true);
    }

    #[test]
    fn the_status_page_shows_what_happened_lately() {
        let running = start(LIMITS);
        let at = datetime!(2026-03-01 12:30 UTC);
        running.state.journal.failed(at, "ends_early", "s3://logs/a: it ends early");
        running.state.journal.matched(at, ["trail-stopped"].into_iter());
        running.state.metrics.matches.with_label_values(&["trail-stopped", "CRITICAL"]).inc_by(1_234);
        running.state.rules.get().unwrap().reload(at).unwrap_err();
        let (head, page) = running.ask("GET", "/");
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-security-policy: default-src 'none';"),
            "{head}"
        );
        for shown in [
            "Not ready",
            "not reached yet",
            "s3://logs/a: it ends early",
            "trail-stopped",
            "1\u{202f}234",
            "was refused",
        ] {
            assert!(page.contains(shown), "{shown:?} is not in {page}");
        }
        for dependency in Dependency::ALL {
            running.state.health.succeeded(dependency);
        }
        assert!(running.ask("GET", "/").1.contains("<p class=\"verdict\">Ready</p>"));
    }

    #[test]
    fn the_rules_page_shows_what_is_in_force_and_why_a_reload_was_refused() {
        let running = start(LIMITS);
        running.state.rules.get().unwrap().reload(datetime!(2026-03-01 13:00 UTC)).unwrap_err();
        let (status, page) = running.get("/rules");
        assert_eq!(status, 200);
        assert_eq!(page["loaded_at"], "2026-03-01T12:00:00Z");
        assert_eq!(page["path"], "no-such-file.json");
        assert_eq!(page["hash"], running.state.rules.get().unwrap().current().hash());
        assert!(page["error"].as_str().unwrap().starts_with("cannot read the rule file no-such-file.json"), "{page}");
        assert_eq!(
            page["rules"],
            serde_json::json!([{
                "id": "trail-stopped", "severity": "CRITICAL", "mode": "alert", "description": "A trail was stopped"
            }])
        );
    }

    #[test]
    fn metrics_are_text_for_prometheus() {
        let running = start(LIMITS);
        running.state.metrics.messages_received.inc_by(3);
        let (head, body) = running.ask("GET", "/metrics");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("\ntrailhound_messages_received_total 3\n"), "{body}");
    }

    #[test]
    fn the_version_and_an_index_are_told() {
        let running = start(LIMITS);
        assert_eq!(running.get("/version").1["version"], env!("CARGO_PKG_VERSION"));
        let index = running.ask("GET", "/").1;
        for path in ["/livez", "/readyz", "/metrics", "/rules", "/version"] {
            assert!(index.contains(path), "{index}");
        }
    }

    #[test]
    fn nothing_but_reading_is_allowed() {
        let running = start(LIMITS);
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let (head, _) = running.ask(method, "/rules");
            assert!(head.starts_with("http/1.1 405 "), "{method}: {head}");
            assert!(head.contains("allow: get,head"), "{method}: {head}");
        }
        let (head, body) = running.ask("HEAD", "/livez");
        assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head}");
        assert!(running.ask("GET", "/rules/reload").0.starts_with("http/1.1 404 "));
    }

    /// Everything that comes for these bytes until the connection ends.
    fn answer_to(running: &Running, bytes: &[u8]) -> String {
        let mut stream = running.connect();
        // The server may hang up before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).map_err(|error| {
            assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset), "{error}");
        });
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn a_body_is_not_waited_for() {
        let running = start(PATIENT);
        for more in
            ["Content-Length: 9999999999", "Transfer-Encoding: chunked", "Expect: 100-continue\r\nContent-Length: 9"]
        {
            let answer = answer_to(&running, format!("POST /rules HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 405 "), "{more}: {answer}");
            let answer = answer_to(&running, format!("GET /livez HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 "), "{more}: {answer}");
        }
    }

    #[test]
    fn a_connection_serves_one_request() {
        let running = start(LIMITS);
        let one = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n";
        let answer = answer_to(&running, one.repeat(1000).as_bytes());
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let running = start(PATIENT);
        let headers = "X: y\r\n".repeat(200);
        for head in [
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
            format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(1 << 20)),
            format!("GET /livez HTTP/1.1\r\nHost: x\r\n{headers}\r\n"),
            "a".repeat(1 << 20),
        ] {
            let answer = answer_to(&running, head.as_bytes());
            assert!(!answer.contains(" 200 "), "{answer}");
        }
        assert_eq!(running.get("/livez").0, 200);
    }

    #[test]
    fn what_is_no_request_is_no_harm() {
        let running = start(LIMITS);
        let garbage: [&[u8]; 10] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03TLS asks for another greeting\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\r\n\r\n",
            b"GET /livez\r\n\r\n",
            b"GET /livez HTTP/9.9\r\n\r\n",
            b"GET  /livez  HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nGET ",
            b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        for bytes in garbage {
            let answer = answer_to(&running, bytes);
            assert!(!answer.contains(" 200 "), "{:?}: {answer}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(running.get("/livez").0, 200);
    }

    /// Each holds a page that no socket takes whole.
    #[test]
    fn clients_that_do_not_read_keep_no_probe_out() {
        let running = start(PATIENT);
        let description = "x".repeat(2000);
        let rule =
            |at| format!(r#"{{"id":"r{at}","severity":"LOW","description":"{description}","eventName":"A{at}"}}"#);
        let many: Vec<String> = (0..4000).map(rule).collect();
        let rules = RuleSet::parse(&format!(r#"{{"events":[{}]}}"#, many.join(","))).unwrap();
        let path = RulePath::File("no-such-file.json".into());
        let source = RuleSource::new(path, rules, datetime!(2026-03-01 12:00 UTC), Arc::clone(&running.state.metrics));
        let state = AdminState { rules: Arc::new(OnceLock::from(source)), ..running.state.clone() };
        drop(running.admin);
        let limits = Limits { connections: 3, ..PATIENT };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let running = Running { admin: Admin::start_within(limits, listener, state.clone()).unwrap(), state };
        let mut slow: Vec<TcpStream> = (0..=limits.connections)
            .map(|_| {
                let mut stream = running.connect();
                stream.write_all(b"GET /rules HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream.peek(&mut [0]).unwrap();
                stream
            })
            .collect();
        assert_eq!(running.get("/livez").0, 200);
        let (mut oldest, mut newest) = (Vec::new(), Vec::new());
        let _cut = slow[0].read_to_end(&mut oldest);
        slow[limits.connections].read_to_end(&mut newest).unwrap();
        assert!(newest.len() > 8_000_000 && oldest.len() < newest.len(), "{} and {}", oldest.len(), newest.len());
    }

    #[test]
    fn slow_clients_keep_no_probe_out() {
        let running = start(PATIENT);
        let slow: Vec<TcpStream> = (0..3 * PATIENT.connections)
            .map(|_| {
                let mut stream = running.connect();
                stream.write_all(b"GET /livez HT").unwrap();
                stream
            })
            .collect();
        assert_eq!(running.get("/livez").0, 200);
        let oldest = (&slow[0]).read(&mut [0; 16]);
        assert!(matches!(oldest, Ok(0)) || oldest.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_head_that_never_ends_is_cut_off() {
        let running = start(Limits { head: Duration::from_millis(50), ..PATIENT });
        let mut stream = running.connect();
        stream.write_all(b"GET /livez HT").unwrap();
        let mut answer = Vec::new();
        // Ends only because the server ends it, with an answer or without.
        let _ =
            stream.read_to_end(&mut answer).map_err(|error| assert_eq!(error.kind(), io::ErrorKind::ConnectionReset));
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }

    #[test]
    fn a_client_that_does_not_close_is_cut_off() {
        let running = start(Limits { connection: Duration::from_millis(50), ..PATIENT });
        assert_eq!(running.connect().read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn dropping_it_frees_the_port() {
        let running = start(LIMITS);
        let address = running.admin.address();
        let _open = running.connect();
        drop(running);
        TcpListener::bind(address).unwrap();
    }
}
