//! The HTTP client below the SDK: hyper's pooled client with rustls, one for all services.
//!
//! The SDK brings one of the same parts. It lets hyper read up to 400 KiB at once, and a body in flight holds several such
//! buffers: with eight bodies they were two thirds of the daemon's heap, and there is no setting for it. Here a read is
//! bounded.

use std::error::Error;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::CONNECT_TIMEOUT;

/// What is read from a connection at once at most, and so how long an answer's headers may be.
const READ_BUFFER: usize = 32 * 1024;

/// A connection that is not used for so long is closed: what is between may have forgotten it.
const IDLE: std::time::Duration = std::time::Duration::from_secs(90);

#[derive(Clone, Debug)]
struct Pooled(Client<HttpsConnector<TcpConnector>, SdkBody>);

/// A client with a pool of its own, which believes the certificates that the system trusts (or `SSL_CERT_FILE`).
pub(super) fn client() -> SharedHttpClient {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificates that the system trusts cannot be read");
    }
    trusting(found.certs)
}

fn trusting(certificates: Vec<CertificateDer<'static>>) -> SharedHttpClient {
    let tls = match tls(certificates) {
        Ok(tls) => tls,
        Err(error) => return SharedHttpClient::new(Unusable(error)),
    };
    let mut tcp = TcpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).http1_max_buf_size(READ_BUFFER);
    SharedHttpClient::new(Pooled(builder.build(connector.wrap_connector(tcp))))
}

fn tls(certificates: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        tracing::warn!("the system trusts no certificates: only endpoints without TLS can be reached");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// There is no TLS: each call says so.
#[derive(Clone, Debug)]
struct Unusable(rustls::Error);

impl HttpClient for Unusable {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Unusable {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Err(ConnectorError::other(self.0.clone().into(), None)))
    }
}

impl HttpClient for Pooled {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Pooled {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(failed)?.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// What a failed exchange means to the SDK: nearly always that the connection was at fault.
fn failed(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let of_hyper = source::<hyper::Error>(&error);
    if of_hyper.is_some_and(hyper::Error::is_user) {
        ConnectorError::user(error.into())
    } else if source::<std::io::Error>(&error).is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
        ConnectorError::timeout(error.into())
    } else if of_hyper.is_some_and(hyper::Error::is_incomplete_message) {
        ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
    } else {
        ConnectorError::io(error.into())
    }
}

fn source<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::super::tests::{meter, ok};
    use super::super::{STALL_TIMEOUT, local, sqs};
    use super::*;
    use crate::ports::{ErrorClass, Fault, MessageQueue};

    const ATTRIBUTES: &str = r#"{"Attributes":{"VisibilityTimeout":"120","ApproximateNumberOfMessages":"7"}}"#;

    /// An HTTPS server on loopback that gives each connection one answer; its endpoint and its certificate.
    async fn serve() -> (String, CertificateDer<'static>) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = cert.der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], signing_key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                // A client that does not trust it goes away.
                let Ok(mut connection) = acceptor.accept(connection).await else { continue };
                let mut request = [0; 4096];
                assert_ne!(connection.read(&mut request).await.unwrap(), 0);
                connection.write_all(&ok(ATTRIBUTES)).await.unwrap();
                _ = connection.shutdown().await;
            }
        });
        (endpoint, certificate)
    }

    fn queue(endpoint: &str, client: SharedHttpClient) -> sqs::Sqs {
        let sdk = local(endpoint, "eu-west-1", STALL_TIMEOUT).to_builder().http_client(client).build();
        sqs::Sqs::new(&sdk, "https://localhost/111122223333/trail", meter())
    }

    #[tokio::test]
    async fn a_service_is_asked_by_tls_if_its_certificate_is_trusted() {
        let (endpoint, certificate) = serve().await;
        let attributes = queue(&endpoint, trusting(vec![certificate])).attributes().await.unwrap();
        assert_eq!(attributes.visible, 7);
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted_is_a_broken_connection() {
        let (endpoint, _) = serve().await;
        for certificates in [Vec::new(), vec![serve().await.1]] {
            let error = queue(&endpoint, trusting(certificates)).attributes().await.unwrap_err();
            assert_eq!((error.class, &error.fault), (ErrorClass::Transient, &Fault::Unavailable), "{error}");
            assert!(error.to_string().contains("certificate"), "{error}");
        }
    }
}
