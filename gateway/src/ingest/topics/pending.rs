//! What is scheduled for a topic, as its publishers see it.

use super::{away, request};
use crate::{
    errors::Refusal,
    ingest::{Ready, answer::Reply},
};
use routing::{
    ids::{Prefix, format},
    table::Topic,
};
use serde_json::json;
use store::scheduled;
use uuid::Uuid;

/// A page of them.
pub(super) async fn list(ready: &Ready, topic: &Topic, query: &str) -> Result<Reply, Refusal> {
    let request::Page { after, limit } = request::page(query)?;
    let listed = scheduled::list(&ready.pool, topic.uid, after, limit + 1)
        .await
        .map_err(away)?;
    let more = listed.len() > usize::from(limit);
    let listed = &listed[..listed.len().min(usize::from(limit))];
    let one = |one: &scheduled::Listed| {
        json!({
            "event_id": format(Prefix::Event, one.id),
            "due_at": one.due_at.to_string(),
            "scheduled_at": one.scheduled_at.to_string(),
            "body_bytes": one.body_bytes,
        })
    };
    let cursor = listed.last().filter(|_| more);
    let body = json!({
        "topic": topic.name,
        "scheduled": listed.iter().map(one).collect::<Vec<_>>(),
        "cursor": cursor.map(|last| format(Prefix::Event, last.id)),
    });
    Ok(request::reply("scheduled_list", &body))
}

/// [`Refusal::ScheduledNotFound`] also when it is an event by now.
pub(super) async fn cancel(ready: &Ready, topic: &Topic, id: Uuid) -> Result<Reply, Refusal> {
    let cancelled = scheduled::cancel(&ready.pool, topic.uid, id)
        .await
        .map_err(away)?;
    if cancelled {
        Ok(request::reply(
            "scheduled_cancel",
            &json!({ "success": true }),
        ))
    } else {
        Err(Refusal::ScheduledNotFound)
    }
}
