//! A sender for tests: posts, and tells what it was answered.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client, client::legacy::connect::HttpConnector, rt::TokioExecutor,
};
use std::{collections::BTreeMap, time::Duration};

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{} {:?}", self.status, self.body))
    }

    /// `event_id` of an accepted request.
    pub fn event_id(&self) -> anyhow::Result<String> {
        anyhow::ensure!(self.status.is_success(), "{} {:?}", self.status, self.body);
        Ok(self.json()?["event_id"]
            .as_str()
            .context("no event_id")?
            .to_owned())
    }
}

/// Keeps connections; cheap to clone.
#[derive(Clone)]
pub struct Sender(Client<HttpConnector, Full<Bytes>>);

impl Default for Sender {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the sender's side, not a delivery"
    )]
    fn default() -> Self {
        Sender(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Sender {
    /// An answer, or an error when there was none within ten seconds: then nobody knows what became of the request.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.exchange(request.body(Full::new(body.into()))?).await
    }

    /// As [`Sender::post`], with any method, and no header but these.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &BTreeMap<String, String>,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.exchange(request.body(Full::new(body.into()))?).await
    }

    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.exchange(Request::get(url).body(Full::default())?)
            .await
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            anyhow::Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        tokio::time::timeout(Duration::from_secs(10), exchange)
            .await
            .context("no answer within ten seconds")?
    }
}
