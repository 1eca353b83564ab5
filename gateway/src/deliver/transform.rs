//! What a connection makes of an event before it is sent: its filter's expression, then its transform.
//!
//! Both are evaluated here and not when the event is recorded: recording never waits for what a tenant has written, and an
//! expression that is slow or wrong never costs an accepted event. So an event that the expression doesn't let pass has a
//! delivery, which ends as filtered.
//!
//! What goes wrong is an attempt that failed by our own fault: it is retried as the policy says, is never charged to the
//! destination, and ends as a dead letter that says what the expression's mistake was.

use super::{Answer, Attempt, Target};
use crate::egress::Client;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use routing::{
    EventView,
    retry::Outcome,
    table::Connection,
    transform::{self, Expression, Shaped},
};
use sandbox::{Evaluation, Pool};
use std::sync::Arc;
use store::events::Event;

/// A connection that has something to evaluate.
#[derive(Debug, Clone)]
pub struct Shaping {
    connection: Arc<Connection>,
    sandbox: Pool,
}

/// What is to be done with the event.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    /// As it came.
    Passed,
    Shaped(Box<Event>, Shaped),
    Filtered(&'static str),
    Failed(String),
}

impl Shaping {
    /// `None`: events of this connection are sent as they came.
    pub fn of(connection: &Arc<Connection>, sandbox: &Pool) -> Option<Shaping> {
        let any = connection.expression.is_some() || connection.transform.is_some();
        any.then(|| Shaping {
            connection: connection.clone(),
            sandbox: sandbox.clone(),
        })
    }

    /// Makes the attempt with what the event becomes, if there is anything to send.
    pub async fn send(&self, target: &Target, client: &Client, attempt: Attempt<'_>) -> Answer {
        let loaded;
        let event = match attempt.event.object_bytes {
            None => attempt.event,
            Some(_) => match attempt.bodies.load(attempt.event).await {
                Ok(found) => {
                    loaded = found;
                    &loaded.event
                }
                Err(lost) => return Answer::internal(lost.to_string()),
            },
        };
        let attempt = Attempt { event, ..attempt };
        match self.shape(event).await {
            Made::Passed => target.send(client, attempt).await,
            Made::Shaped(event, set) => {
                let attempt = Attempt {
                    event: &event,
                    set: Some(&set),
                    ..attempt
                };
                target.send(client, attempt).await
            }
            Made::Filtered(why) => Answer::without_response(Outcome::Filtered, why),
            Made::Failed(why) => Answer::internal(why),
        }
    }

    async fn shape(&self, event: &Event) -> Made {
        let headers = map(&event.headers);
        if let Some(expression) = &self.connection.expression {
            let passes = match self.evaluate(expression, event, &headers).await {
                Ok(result) => transform::passes(result.as_deref()),
                Err(why) => Err(format!("the filter's expression failed: {why}")),
            };
            match passes {
                Ok(true) => {}
                Ok(false) => {
                    return Made::Filtered("the filter's expression did not let the event pass");
                }
                Err(why) => return Made::Failed(why),
            }
        }
        let Some(transform) = &self.connection.transform else {
            return Made::Passed;
        };
        let result = match self.evaluate(&transform.expression, event, &headers).await {
            Ok(Some(result)) => result,
            Ok(None) => return Made::Filtered("the transform gives nothing for this event"),
            Err(why) => return Made::Failed(format!("the transform failed: {why}")),
        };
        match transform::shaped(transform.output, &result) {
            Ok(shaped) => Made::Shaped(Box::new(reshaped(event, &shaped)), shaped),
            Err(why) => Made::Failed(why),
        }
    }

    /// `None`: the expression gives nothing.
    async fn evaluate(
        &self,
        expression: &Expression,
        event: &Event,
        headers: &HeaderMap,
    ) -> Result<Option<Bytes>, String> {
        let method = Method::from_bytes(event.method.as_bytes()).unwrap_or(Method::POST);
        let head = {
            let view = EventView::new(
                &method,
                &event.path,
                &event.query,
                headers,
                &event.body,
                event.remote_addr,
            );
            transform::head(&view, expression.input)
        };
        let input = sandbox::Input {
            head: head.into(),
            body: event.body.clone(),
            envelope: expression.input == transform::Input::Envelope,
        };
        match self.sandbox.evaluate(&expression.text, input).await {
            Evaluation::Value(value) => Ok(Some(value)),
            Evaluation::Undefined => Ok(None),
            Evaluation::Failed(why) | Evaluation::Unavailable(why) => Err(why),
        }
    }
}

/// The event with what was set of it. What spoke of the body that came goes with it.
fn reshaped(event: &Event, shaped: &Shaped) -> Event {
    let mut reshaped = event.clone();
    if let Some((body, media_type)) = &shaped.body {
        reshaped.body = Bytes::copy_from_slice(body);
        let mut headers = BytesMut::with_capacity(event.headers.len() + 64);
        for (name, line) in lines(&event.headers) {
            let of_body = [
                header::CONTENT_TYPE.as_str(),
                header::CONTENT_ENCODING.as_str(),
                header::CONTENT_LENGTH.as_str(),
                "content-digest",
                "digest",
            ];
            if !of_body
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            {
                headers.put_slice(line);
                headers.put_slice(b"\r\n");
            }
        }
        headers.put_slice(format!("content-type: {media_type}\r\n").as_bytes());
        reshaped.headers = headers.freeze();
    }
    if let Some(path) = &shaped.path {
        reshaped.path.clone_from(path);
    }
    if let Some(query) = &shaped.query {
        reshaped.query.clone_from(query);
    }
    reshaped
}

/// The names of `name: value\r\n` lines, with their lines.
fn lines(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line))
        })
}

fn map(headers: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, line) in lines(headers) {
        let value = line[name.len() + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            // A map holds 32,768 headers at most; ingest admits far fewer.
            let _ = map.try_append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests;
