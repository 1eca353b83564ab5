//! Whether a publication fits its topic, and where its events go.

use crate::{
    errors::Refusal,
    ingest::{head, recording::pairs},
};
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use routing::{
    EventView, cloudevents,
    publication::{self, MOST_EVENTS, Problem, Publication},
    schema::{Action, MOST_MISFITS},
    table::Topic,
};
use std::net::IpAddr;
use store::events::Verification;
use uuid::Uuid;

/// Of all events of a batch together; they are one commit. One alone goes wherever it is to go.
const MOST_DELIVERIES: usize = 32 << 10;

/// A publication that fits its topic.
pub(super) struct Judged {
    pub(super) publication: Publication,
    pub(super) headers: Bytes,
    /// Of each event: where it goes, and whether it fits the schema.
    pub(super) events: Vec<(Vec<(Uuid, Uuid)>, Verification)>,
}

/// A publication as it came.
pub(super) struct Asked {
    pub(super) batch: bool,
    pub(super) several: bool,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) version: http::Version,
    pub(super) body: Bytes,
    pub(super) remote_addr: IpAddr,
    pub(super) now: Timestamp,
}

impl Asked {
    /// The bodies' parsing and matching are most of what a large one costs.
    pub(super) fn judge(mut self, topic: &Topic) -> Result<Judged, Refusal> {
        let read = publication::read(&self.headers, &self.query, &self.body, self.batch, self.now);
        let mut publication = read.map_err(unpublishable)?;
        let changed = publication.events[0].body != self.body;
        publication::headers::keep(&mut self.headers, publication.cloud_events, changed);
        let mut events = Vec::with_capacity(publication.events.len());
        let (mut deliveries, alone) = (0, publication.events.len() == 1);
        for (place, event) in publication.events.iter_mut().enumerate() {
            let event_type = event.event_type();
            if !topic.takes(event_type) {
                return Err(Refusal::EventTypeNotAllowed {
                    event_type: event_type.map(|found| found.chars().take(MOST_TYPE).collect()),
                    event_types: topic.event_types.iter().take(MOST_TYPES).cloned().collect(),
                });
            }
            let verification = fits(topic, event, self.several.then_some(place))?;
            // A scheduled event goes where the subscriptions say when it is due.
            let matched = match publication.due {
                Some(_) => Vec::new(),
                None => {
                    let json = std::mem::take(&mut event.json);
                    let view = EventView::new(
                        &Method::POST,
                        "",
                        "",
                        &self.headers,
                        &event.body,
                        self.remote_addr,
                    )
                    .with_json(json);
                    pairs(topic.route(&view))
                }
            };
            deliveries += matched.len();
            if !alone && deliveries > MOST_DELIVERIES {
                return Err(Refusal::Unpublishable(std::format!(
                    "the events of this batch make more than {MOST_DELIVERIES} deliveries; send fewer of them at once"
                )));
            }
            events.push((matched, verification));
        }
        Ok(Judged {
            headers: head::lines(self.version, &self.headers),
            publication,
            events,
        })
    }
}

/// Characters of an event's type, and types of a topic, that an answer repeats.
const MOST_TYPE: usize = 256;
const MOST_TYPES: usize = 50;

/// Whether an event fits the topic's schema. `place`: within a batch.
fn fits(
    topic: &Topic,
    event: &publication::Event,
    place: Option<usize>,
) -> Result<Verification, Refusal> {
    let Some(check) = &topic.schema else {
        return Ok(Verification::Verified);
    };
    let mut misfits = check.misfits(Some(&event.json));
    match check.rule.action {
        _ if misfits.is_empty() => Ok(Verification::Verified),
        Action::Warn => Ok(Verification::SchemaInvalid),
        Action::Reject => {
            misfits.truncate(MOST_MISFITS);
            if let Some(place) = place {
                for misfit in &mut misfits {
                    misfit.path = std::format!("/events/{place}{}", misfit.path);
                }
            }
            Err(Refusal::SchemaInvalid(misfits))
        }
    }
}

fn unpublishable(problem: Problem) -> Refusal {
    match problem {
        Problem::Invalid(sentence) | Problem::Passed(sentence) => Refusal::Unpublishable(sentence),
        Problem::Format => Refusal::UnsupportedMediaType {
            content_types: [
                cloudevents::STRUCTURED,
                cloudevents::BATCH,
                "application/json",
            ]
            .map(str::to_owned)
            .to_vec(),
        },
        Problem::TooMany => Refusal::Unpublishable(std::format!(
            "a batch has at most {MOST_EVENTS} events; send the others in another one"
        )),
    }
}
