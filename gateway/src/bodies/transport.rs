//! Carries the object store library's requests over our own HTTP client: one TLS stack, one list of trusted authorities.

use crate::egress;
use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
        HttpResponse, HttpResponseBody, HttpService,
    },
};
use std::time::Duration;

/// From the request's first byte to the answer's head; a part of an upload goes in between.
const ANSWER: Duration = Duration::from_secs(30);

/// Answers are not timed here: who reads one has a deadline of its own.
#[derive(Debug, Clone)]
pub(super) struct Transport(legacy::Client<egress::GuardConnector, HttpRequestBody>);

impl Transport {
    pub(super) fn new() -> Transport {
        Transport(egress::unguarded())
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sent = tokio::time::timeout(ANSWER, self.0.request(request)).await;
        let response = sent
            .map_err(|error| HttpError::new(HttpErrorKind::Timeout, error))?
            .map_err(|error| {
                let kind = match error.is_connect() {
                    true => HttpErrorKind::Connect,
                    false => HttpErrorKind::Interrupted,
                };
                HttpError::new(kind, error)
            })?;
        Ok(response.map(|body| {
            HttpResponseBody::new(
                body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)),
            )
        }))
    }
}
