//! Kubernetes Events: what `kubectl describe` shows of transitions.
//!
//! One per transition of an object, written after the status was. Bounded in rate: a thousand objects that change at
//! once have their conditions; their Events are dropped and counted.

use crate::{
    change::Meta,
    metrics::Metrics,
    notice::Notice,
    status::{ACCEPTED, PROGRAMMED, READY, RESOLVED_REFS, condition},
};
use crds::Status;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use service::{clock, log::chain};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be sent; more are dropped.
const WAITING: usize = 256;

/// At most this many at once, and so many a second in the long run.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 10.0;

/// The API server refuses longer notes than 1024 bytes.
const NOTE_BYTES: usize = 1000;

/// An Event about an object.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    pub object: ObjectReference,
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

/// Where Events go. Never waits.
#[derive(Debug, Clone)]
pub struct Events {
    sender: mpsc::Sender<About>,
    metrics: Metrics,
}

impl Events {
    pub fn send(&self, event: About) {
        if self.sender.try_send(event).is_err() {
            self.metrics.events.with_label_values(&["dropped"]).inc();
        }
    }
}

/// The sender, and the task that sends until the token is cancelled.
pub fn channel(client: Client, instance: String, metrics: Metrics) -> (Events, Sending) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = Recorder::new(
        client,
        Reporter {
            controller: "hookstream-operator".to_owned(),
            instance: Some(instance),
        },
    );
    (
        Events {
            sender,
            metrics: metrics.clone(),
        },
        Sending {
            receiver,
            recorder,
            metrics,
        },
    )
}

pub struct Sending {
    receiver: mpsc::Receiver<About>,
    recorder: Recorder,
    metrics: Metrics,
}

impl Sending {
    pub async fn run(mut self, token: CancellationToken) {
        let mut bucket = Bucket {
            tokens: BURST,
            at: clock::instant(),
        };
        loop {
            let event = tokio::select! {
                () = token.cancelled() => return,
                event = self.receiver.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
            };
            let result = if bucket.take(clock::instant()) {
                self.send(event).await
            } else {
                "dropped"
            };
            self.metrics.events.with_label_values(&[result]).inc();
        }
    }

    async fn send(&self, about: About) -> &'static str {
        let event = Event {
            type_: if about.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            action: about.reason.clone(),
            reason: about.reason,
            note: Some(shortened(about.note)),
            secondary: None,
        };
        match tokio::time::timeout(
            Duration::from_secs(5),
            self.recorder.publish(&event, &about.object),
        )
        .await
        {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                tracing::debug!(error = chain(&error), "an Event was not written");
                "failed"
            }
            Err(_) => "failed",
        }
    }
}

fn shortened(mut note: String) -> String {
    if note.len() > NOTE_BYTES {
        let end = (0..=NOTE_BYTES)
            .rev()
            .find(|&at| note.is_char_boundary(at))
            .unwrap_or(0);
        note.truncate(end);
    }
    note
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        self.tokens =
            (self.tokens + now.duration_since(self.at).as_secs_f64() * PER_SECOND).min(BURST);
        self.at = now;
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

/// What is worth an Event when a status takes another's place: a refusal, a reference that doesn't resolve, and Ready.
/// Waiting for gateways isn't: every apply would make two.
pub fn transitions(meta: &Meta, before: Option<&Status>, after: &Status) -> Vec<About> {
    let mut events = Vec::new();
    for type_ in [ACCEPTED, RESOLVED_REFS, PROGRAMMED, READY] {
        let Some(now) = condition(after, type_) else {
            continue;
        };
        let was = before.and_then(|before| condition(before, type_));
        if was.is_some_and(|was| was.status == now.status && was.reason == now.reason) {
            continue;
        }
        match (type_, now.status.as_str()) {
            (READY, "True") => events.push(about(meta, now, false)),
            (ACCEPTED | RESOLVED_REFS, "False") => events.push(about(meta, now, true)),
            (PROGRAMMED, _)
                if matches!(now.reason.as_str(), "NoReplicas" | "DatabaseUnavailable") =>
            {
                events.push(about(meta, now, true))
            }
            _ => {}
        }
    }
    events
}

fn about(meta: &Meta, condition: &Condition, warning: bool) -> About {
    let resource = crate::kinds::api_resource(meta.kind);
    let note = match condition.message.as_str() {
        "" => format!("generation {} is routed by every gateway", meta.generation),
        message => message.to_owned(),
    };
    About {
        object: ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(meta.namespace.clone()),
            name: Some(meta.name.clone()),
            uid: Some(meta.uid.to_string()),
            ..ObjectReference::default()
        },
        warning,
        reason: condition.reason.clone(),
        note,
    }
}

/// Turns notices into Events about the operator's own pod, until they end. Without a known pod they are only in the log.
pub async fn about_the_operator(
    mut notices: mpsc::Receiver<Notice>,
    pod: Option<ObjectReference>,
    events: Events,
) {
    while let Some(notice) = notices.recv().await {
        tracing::info!(reason = notice.reason, note = notice.note, "notice");
        if let Some(pod) = &pod {
            events.send(About {
                object: pod.clone(),
                warning: notice.warning,
                reason: notice.reason.to_owned(),
                note: notice.note,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_bounded_in_rate() {
        let start = clock::instant();
        let mut bucket = Bucket {
            tokens: BURST,
            at: start,
        };
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 50);
        assert_eq!(
            (0..1000)
                .filter(|_| bucket.take(start + Duration::from_secs(1)))
                .count(),
            10
        );
    }
}
