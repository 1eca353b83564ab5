//! One attempt: a delivery goes to its destination once, and what is known afterwards comes back as data.
//!
//! A provider is one file with the same verbs: prepare (the row's configuration, once per change), send, classify. A
//! provider never retries (a kept connection that turned out to be dead is not a try, see [`http`]), never touches the
//! store and never fails: what goes wrong is an [`Answer`] too.

pub mod http;
#[cfg(test)]
pub(crate) mod receiver;
pub mod transform;

use crate::{bodies::Bodies, egress::Client};
use bytes::Bytes;
use jiff::Timestamp;
use routing::{retry::Outcome, row::Provider, table::Destination, transform::Shaped};
use store::{events::Event, outcomes::Timings};

/// What an attempt sends.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub event: &'a Event,
    /// From 1.
    pub number: u32,
    /// When it starts.
    pub now: Timestamp,
    /// What a transform has set beside what it has put into the event.
    pub set: Option<&'a Shaped>,
    /// Where the body is if it is not with the event.
    pub bodies: &'a Bodies,
}

/// What is known after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub outcome: Outcome,
    /// For a person; `None` when the outcome says it all. Never holds a secret.
    pub error: Option<String>,
    pub timings: Timings,
    /// `name: value\r\n` lines, at most 16 KiB.
    pub headers: Option<Bytes>,
    /// At most the first 16 KiB.
    pub body: Option<Bytes>,
}

impl Answer {
    fn without_response(outcome: Outcome, error: impl Into<String>) -> Answer {
        Answer {
            outcome,
            error: Some(error.into()),
            timings: Timings::default(),
            headers: None,
            body: None,
        }
    }

    /// For an attempt of ours that broke off without any answer.
    pub fn internal(error: impl Into<String>) -> Answer {
        Answer::without_response(Outcome::Internal, error)
    }
}

/// A destination made ready to be sent to: everything that is the same for each attempt is done once.
#[derive(Debug)]
pub struct Target(Kind);

#[derive(Debug)]
enum Kind {
    Http(Box<http::Target>),
    /// The compiler let something through that can't be sent to. Ours to mend, so attempts end as `Internal` and are retried.
    Unusable(String),
}

impl Target {
    pub fn prepare(destination: &Destination) -> Target {
        let Provider::Http(spec) = &destination.spec.provider;
        Target(
            match http::Target::prepare(spec, &destination.secrets, &destination.namespace) {
                Ok(target) => Kind::Http(Box::new(target)),
                Err(error) => {
                    tracing::error!(namespace = destination.namespace, name = destination.name, %error, "the table has a destination that can't be used");
                    Kind::Unusable(error.to_string())
                }
            },
        )
    }

    /// Makes one attempt. Returns within the destination's timeout.
    pub async fn send(&self, client: &Client, attempt: Attempt<'_>) -> Answer {
        match &self.0 {
            Kind::Http(target) => target.send(client, attempt).await,
            Kind::Unusable(error) => Answer::internal(error.clone()),
        }
    }
}

/// The response's status, if there was one.
pub const fn status(outcome: &Outcome) -> Option<u16> {
    match outcome {
        Outcome::Delivered { status } | Outcome::Refused { status, .. } => Some(*status),
        Outcome::TimedOut
        | Outcome::Unreachable
        | Outcome::Blocked
        | Outcome::Filtered
        | Outcome::Internal => None,
    }
}
