//! What a topic makes of a publication, in the gateway's order.

use super::{Said, source::schema};
use bytes::Bytes;
use http::HeaderMap;
use routing::{
    compile::DEFAULT_MAX_BODY_BYTES,
    publication::{self, Event, MOST_EVENTS, Problem, headers},
    table::{PublishKey, Topic},
};

/// A publication that fits its topic.
pub(super) struct Fits {
    pub(super) steps: Vec<Said>,
    /// What is kept of the request's.
    pub(super) headers: HeaderMap,
    pub(super) events: Vec<Event>,
}

/// Or why it would be refused, in the gateway's words.
pub(super) fn judge(
    topic: &Topic,
    sent: &HeaderMap,
    query: &str,
    body: &Bytes,
    batch: bool,
) -> Result<Fits, String> {
    let mut steps = vec![("publish key", key(topic, sent)?)];
    let (bytes, most) = (body.len() as u64, DEFAULT_MAX_BODY_BYTES);
    if bytes > most {
        return Err(format!(
            "the request has {bytes} bytes, a topic takes {most}: 413"
        ));
    }
    let read = publication::read(sent, query, body, batch, service::clock::now());
    let publication = read.map_err(refused)?;
    let several = publication.events.len() > 1;
    for (place, event) in publication.events.iter().enumerate() {
        let event_type = event.event_type();
        if !topic.takes(event_type) {
            let found = event_type.unwrap_or("no `type`");
            let types = topic.event_types.join(", ");
            return Err(format!(
                "the type {found} is not among the topic's, {types}: 422"
            ));
        }
        let of_it = |said: String| match several {
            true => format!("event {place}: {said}"),
            false => said,
        };
        let fits = schema(topic.schema.as_deref(), Some(&event.json)).map_err(of_it)?;
        steps.extend(fits.map(|(step, said)| (step, of_it(said))));
    }
    steps.push(match publication.due {
        None => ("accepted", "published at once".to_owned()),
        Some(due) => (
            "scheduled",
            format!(
                "for {due:.3}; where it goes is decided then, and below is how it would be now"
            ),
        ),
    });
    let changed = publication.events[0].body != *body;
    let mut kept = sent.clone();
    headers::keep(&mut kept, publication.cloud_events, changed);
    Ok(Fits {
        steps,
        headers: kept,
        events: publication.events,
    })
}

fn key(topic: &Topic, sent: &HeaderMap) -> Result<String, String> {
    if !topic.has_keys() {
        return Err("nobody may publish: spec.publishKeyRefs names no key: 401".to_owned());
    }
    match headers::publish_key(sent) {
        None => Ok("none was given with --header 'X-API-Key: …'; not tried here".to_owned()),
        Some(key) if topic.admits(&PublishKey::new(key)) => Ok("one of the topic's".to_owned()),
        Some(_) => Err("this is no publish key of the topic: 401".to_owned()),
    }
}

fn refused(problem: Problem) -> String {
    match problem {
        Problem::Invalid(sentence) | Problem::Passed(sentence) => format!("{sentence}: 400"),
        Problem::Format => "CloudEvents come in the JSON format: 415".to_owned(),
        Problem::TooMany => format!("a batch has at most {MOST_EVENTS} events: 400"),
    }
}
