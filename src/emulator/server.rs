//! HTTP on loopback: one request, one call; and the faults that only a connection can have.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use winterbaume_core::{MockRequest, MockResponse};

use super::{Aws, Fault, RequestInfo, read, wire};
use crate::env::lock;

/// How long a connection is kept open after the last byte that it is to carry.
const FLUSH: Duration = Duration::from_millis(20);

type Body = BoxBody<Bytes, io::Error>;

/// Serves until told to stop, or until the other side of `stopped` is gone.
pub(super) async fn serve(listener: TcpListener, aws: Arc<Aws>, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, Arc::clone(&aws)));
                }
                Err(error) => tracing::debug!(%error, "the emulator could not accept a connection"),
            },
        }
    }
}

async fn connection(stream: TcpStream, aws: Arc<Aws>) {
    let _best_effort = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let aws = Arc::clone(&aws);
        async move { handle(&aws, request).await }
    });
    // An error here is a client that went away, or a fault that was asked for.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Answers one request. An error closes the connection without an answer.
async fn handle(aws: &Aws, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let head = parts.method == Method::HEAD;
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let request =
        MockRequest { method: parts.method.to_string(), uri: path.clone(), headers: parts.headers, body: body.clone() };
    let called = wire::recognise(&request);
    *lock(&aws.requests).entry((called.service, called.operation.clone())).or_default() += 1;
    if let Some(latency) = aws.latency {
        tokio::time::sleep(latency).await;
    }
    let info = RequestInfo { service: called.service, operation: called.operation.clone(), path, body };
    let fault = read(&aws.fault).as_ref().and_then(|hook| hook(&info));
    let failed = |status, code: &str| wire::error(called.service, status, code, "a fault that a test asked for");
    let answer = match fault {
        Some(Fault::Refuse) => return Err(closed()),
        Some(Fault::Before { status, code }) => failed(status, &code),
        Some(Fault::After { status, code }) => {
            aws.answer(&called, request).await;
            failed(status, &code)
        }
        Some(Fault::LoseAnswer) => {
            aws.answer(&called, request).await;
            return Err(closed());
        }
        Some(Fault::CutBody { after }) => return cut(aws.answer(&called, request).await, after),
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            aws.answer(&called, request).await
        }
        None => aws.answer(&called, request).await,
    };
    respond(answer, head)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "a fault that a test asked for")
}

fn respond(answer: MockResponse, head: bool) -> io::Result<Response<Body>> {
    let MockResponse { status, mut headers, body } = answer;
    if !head {
        headers.remove(CONTENT_LENGTH);
    }
    let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed();
    finish(status, headers, body)
}

fn cut(answer: MockResponse, after: usize) -> io::Result<Response<Body>> {
    let MockResponse { status, mut headers, mut body } = answer;
    headers.insert(CONTENT_LENGTH, body.len().into());
    body.truncate(after);
    let end = async {
        // Time to send the head and the part: an error at once would take both back.
        tokio::time::sleep(FLUSH).await;
        Err(closed())
    };
    let frames = stream::iter([Ok(Frame::data(body))]).chain(stream::once(end));
    finish(status, headers, BodyExt::boxed(StreamBody::new(frames)))
}

fn finish(status: u16, mut headers: http::HeaderMap, body: Body) -> io::Result<Response<Body>> {
    let id = wire::uuid().parse().map_err(io::Error::other)?;
    let name = if headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"json-1.0")) {
        "x-amzn-requestid"
    } else {
        "x-amz-request-id"
    };
    headers.insert(name, id);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    *response.headers_mut() = headers;
    Ok(response)
}
