//! Kubernetes Events: what `kubectl describe` shows of transitions.
//!
//! One per transition of an object, written after the status was. Bounded in rate, for each namespace and for all: a
//! thousand objects that change at once have their conditions; their Events are dropped and counted.

mod rate;

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
use rate::Buckets;
use service::{clock, log::chain};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be sent; more are dropped.
const WAITING: usize = 256;

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
    buckets: Arc<Mutex<Buckets>>,
    metrics: Metrics,
}

impl Events {
    pub fn send(&self, event: About) {
        // Before the queue, so that one namespace can't fill that either.
        let namespace = event.object.namespace.as_deref().unwrap_or_default();
        let permitted = self
            .buckets
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take(namespace, clock::instant());
        if !permitted || self.sender.try_send(event).is_err() {
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
            buckets: Arc::new(Mutex::new(Buckets::new(clock::instant()))),
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
        loop {
            let event = tokio::select! {
                () = token.cancelled() => return,
                event = self.receiver.recv() => match event {
                    Some(event) => event,
                    None => return,
                },
            };
            let result = self.send(event).await;
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

    #[tokio::test]
    async fn a_namespace_that_flaps_does_not_fill_the_queue() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let metrics = Metrics::new(&prometheus::Registry::new());
        let (events, mut sending) = channel(
            Client::try_from(config).unwrap(),
            "operator-0".to_owned(),
            metrics.clone(),
        );
        let about = |namespace: &str| About {
            object: ObjectReference {
                namespace: Some(namespace.to_owned()),
                ..ObjectReference::default()
            },
            warning: false,
            reason: "Ready".to_owned(),
            note: String::new(),
        };
        for _ in 0..2 * WAITING {
            events.send(about("flapping"));
        }
        events.send(about("quiet"));
        let mut waiting = Vec::new();
        while let Ok(about) = sending.receiver.try_recv() {
            waiting.extend(about.object.namespace);
        }
        assert_eq!(waiting.last().map(String::as_str), Some("quiet"));
        assert!(metrics.events.with_label_values(&["dropped"]).get() > 0);
    }
}
