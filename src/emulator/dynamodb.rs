//! DynamoDB: `winterbaume` reads, then writes; here one request at a time is let through, which makes conditions atomic.

use tokio::sync::Mutex;
use winterbaume_core::{MockRequest, MockResponse, MockService};
use winterbaume_dynamodb::DynamoDbService;

use super::wire;

pub(super) struct Tables {
    region: String,
    service: Mutex<DynamoDbService>,
}

impl Tables {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), service: Mutex::new(DynamoDbService::new()) }
    }

    pub(super) async fn answer(&self, _operation: &str, mut request: MockRequest) -> MockResponse {
        request.uri = wire::service_uri("dynamodb", &self.region, &request.uri);
        // The signature's region would win over the URI's.
        request.headers.remove(http::header::AUTHORIZATION);
        self.service.lock().await.handle(request).await
    }
}
