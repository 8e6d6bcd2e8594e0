//! `trailhound healthcheck`: asks a running daemon, for images without curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, environment, runtime, say};
use crate::config::Config;

const DEADLINE: Duration = Duration::from_secs(3);

/// No answer of ours is longer.
const MAX_ANSWER: usize = 64 * 1024;

/// Works only if the daemon answers that it works and that it was ready once: a deployment that cannot work is to be
/// rolled back.
pub(super) fn run(file: Option<&Path>, url: Option<&str>) -> Result<(), Failure> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => address(Config::listen(file, environment())?, "/livez")?,
    };
    runtime()?.block_on(check(&url)).map_err(|error| Failure::at(format_args!("unhealthy: {url}"), error))?;
    say("healthy")
}

/// Where a daemon that listens at `listen` can be asked from the same machine.
pub(super) fn address(listen: SocketAddr, path: &str) -> Result<String, Failure> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    if listen.port() == 0 {
        return Err(Failure::Other("http.listen leaves the port open: say with --url where to ask".to_owned()));
    }
    Ok(format!("http://{}{path}", SocketAddr::new(ip, listen.port())))
}

#[derive(Deserialize)]
struct Answer {
    was_ready: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

/// What a daemon's `/readyz` says: `Ok` of whether it is ready and what is missing, `Err` where no daemon answers.
pub(super) async fn readiness(url: &str) -> Result<Result<(), String>, String> {
    #[derive(Deserialize)]
    struct Report {
        ok: bool,
        checks: Vec<Check>,
    }

    let (status, body) = in_time(url).await?;
    let Ok(report) = serde_json::from_slice::<Report>(&body) else {
        return Err(format!("answered {status}, but not as /readyz of trailhound does"));
    };
    if report.ok && status == StatusCode::OK {
        return Ok(Ok(()));
    }
    Ok(Err(failed(&report.checks)))
}

/// The checks that failed, with their reasons.
fn failed(checks: &[Check]) -> String {
    let failed: Vec<String> =
        checks.iter().filter(|check| !check.ok).map(|check| format!("{}: {}", check.name, check.detail)).collect();
    failed.join("; ")
}

async fn in_time(url: &str) -> Result<(StatusCode, Bytes), String> {
    timeout(DEADLINE, ask(url))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s; is the daemon running?", DEADLINE.as_secs())))
}

async fn check(url: &str) -> Result<(), String> {
    let (status, body) = in_time(url).await?;
    let answer: Result<Answer, _> = serde_json::from_slice(&body);
    let Ok(answer) = answer else {
        return Err(format!("answered {status}, but not as /livez of trailhound does"));
    };
    let failed = failed(&answer.checks);
    if !failed.is_empty() || status != StatusCode::OK {
        return Err(format!("answered {status}: {failed}"));
    }
    if !answer.was_ready {
        return Err("the daemon was never ready yet; /readyz and its log say what is missing".to_owned());
    }
    Ok(())
}

async fn ask(url: &str) -> Result<(StatusCode, Bytes), String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL ({error})"))?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("not a URL that starts with http:// and a host".to_owned());
    };
    let port = uri.port_u16().unwrap_or(80);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("cannot connect ({error}); is the daemon running?"))?;
    let failed = |error: &dyn std::fmt::Display| format!("no HTTP answer ({error})");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let path =
        uri.path_and_query().map_or("/livez", |path| if path.as_str() == "/" { "/livez" } else { path.as_str() });
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| failed(&error))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    // The connection moves the bytes; only the answer can end this.
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            ended = &mut connection => ended.map_err(|error| failed(&error))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const CHECKS: &str = r#""checks":[{"name":"poll_loop","ok":true,"detail":""}]"#;

    /// The outcome of a check against a server that gives one answer.
    async fn against(status: &str, body: String) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            // The client may have had enough before the end.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let result = check(&format!("http://{address}")).await;
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /livez HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains(&format!("host: {address}")), "{request}");
        result
    }

    #[tokio::test]
    async fn a_daemon_that_works_and_was_ready_is_healthy() {
        against("200 OK", format!(r#"{{"was_ready":true,"ok":true,{CHECKS}}}"#)).await.unwrap();
    }

    #[tokio::test]
    async fn a_daemon_that_was_never_ready_is_not() {
        let error = against("200 OK", format!(r#"{{"was_ready":false,"ok":true,{CHECKS}}}"#)).await.unwrap_err();
        assert_eq!(error, "the daemon was never ready yet; /readyz and its log say what is missing");
    }

    #[tokio::test]
    async fn a_daemon_that_stands_still_is_not_and_says_why() {
        let body = r#"{"was_ready":true,"ok":false,"checks":[
            {"name":"poll_loop","ok":false,"detail":"the poll loop has stood still for 99 s"}
        ]}"#;
        let error = against("503 Service Unavailable", body.to_owned()).await.unwrap_err();
        assert_eq!(error, "answered 503 Service Unavailable: poll_loop: the poll loop has stood still for 99 s");
    }

    #[tokio::test]
    async fn something_else_at_the_address_is_not() {
        for body in ["<html>It works!</html>".to_owned(), "{}".to_owned(), String::new()] {
            let error = against("200 OK", body).await.unwrap_err();
            assert_eq!(error, "answered 200 OK, but not as /livez of trailhound does");
        }
        let error = against("200 OK", "x".repeat(2 * MAX_ANSWER)).await.unwrap_err();
        assert!(error.starts_with("no HTTP answer ("), "{error}");
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_not() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = check(&format!("http://{address}/livez")).await.unwrap_err();
        assert!(error.starts_with("cannot connect ("), "{error}");
        assert!(check("https://localhost/livez").await.unwrap_err().contains("http://"));
        assert!(check("localhost:8080").await.unwrap_err().contains("http://"));
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_who_never_answers_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check(&format!("http://{}", listener.local_addr().unwrap())).await.unwrap_err();
        assert_eq!(error, "no answer within 3 s; is the daemon running?");
    }

    #[test]
    fn a_daemon_on_all_interfaces_is_asked_on_loopback() {
        let url = |listen: &str| address(listen.parse().unwrap(), "/livez");
        assert_eq!(url("0.0.0.0:8080").unwrap(), "http://127.0.0.1:8080/livez");
        assert_eq!(url("[::]:8080").unwrap(), "http://[::1]:8080/livez");
        assert_eq!(url("192.0.2.1:80").unwrap(), "http://192.0.2.1:80/livez");
        assert!(url("127.0.0.1:0").is_err());
    }
}
