//! `hookstream deliveries …` and `hookstream events retry`.

use super::{
    args::{Deliveries, Event, Get, List, Output, Retry, RetryEvent},
    connect, filter, show,
};
use crate::output;
use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use routing::ids::{self, Prefix};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write, process::ExitCode};
use store::{
    Pool,
    attempts::{self, Made, Trigger},
    deliveries::{self, Cursor, DeadLetter, Delivery, PAGE, State},
    destination_state,
    retries::{self, OfEvent, Request, Retried},
};
use uuid::Uuid;

pub(super) async fn run(verb: Deliveries) -> Result<ExitCode> {
    match verb {
        Deliveries::List(options) => list(options).await,
        Deliveries::Get(options) => get(options).await,
        Deliveries::Retry(options) => retry(options).await,
    }
}

/// Pages that one list reads: some hundred thousand dead letters, when nearly none match.
const PAGES: u32 = 50;

async fn list(options: List) -> Result<ExitCode> {
    let store = connect(&options.common.database).await?;
    let namespace = &options.namespace.namespace;
    let filter = filter(&store.pool, namespace, &options.filters).await?;
    let mut found: Vec<DeadLetter> = Vec::new();
    let mut next = options.cursor;
    for _ in 0..PAGES {
        let left = options.limit - found.len() as u32;
        let page = deliveries::page(&store.pool, namespace, &filter, next, left.min(PAGE))
            .await
            .context("reading dead letters")?;
        found.extend(page.dead_letters);
        next = page.next;
        if next.is_none() || found.len() >= options.limit as usize {
            break;
        }
    }
    match options.common.output {
        Output::Json => show::print_json(&list_json(&found, next))?,
        Output::Text => output::print(&list_text(&found, next, namespace))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list_json(found: &[DeadLetter], next: Option<Cursor>) -> Value {
    let dead_letters: Vec<Value> = found
        .iter()
        .map(|one| {
            json!({
                "id": show::delivery(one.delivery_id),
                "event_id": ids::format(Prefix::Event, one.event_id),
                "namespace": one.namespace,
                "connection": show::named_json(Prefix::Connection, &one.connection),
                "destination": show::named_json(Prefix::Destination, &one.destination),
                "reason": one.reason,
                "attempts": one.attempts,
                "retried": one.round,
                "created_at": one.created_at,
                "given_up_at": one.finished_at,
                "last_status": one.status,
                "last_error": one.error,
            })
        })
        .collect();
    json!({"dead_letters": dead_letters, "next_cursor": next.map(|next| next.to_string())})
}

fn list_text(found: &[DeadLetter], next: Option<Cursor>, namespace: &str) -> String {
    let titles = [
        "DELIVERY",
        "DESTINATION",
        "CONNECTION",
        "REASON",
        "ATTEMPTS",
        "GIVEN UP",
        "LAST ATTEMPT",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|one| {
        vec![
            show::delivery(one.delivery_id),
            show::name(Prefix::Destination, &one.destination),
            show::name(Prefix::Connection, &one.connection),
            one.reason.clone(),
            one.attempts.to_string(),
            show::time(one.finished_at),
            last(one.status, one.error.as_deref()),
        ]
    }));
    let mut out = match found.is_empty() {
        true if next.is_none() => format!("no dead letters like that in namespace {namespace}\n"),
        true => String::new(),
        false => show::table(&rows),
    };
    if let Some(next) = next {
        let _ = writeln!(out, "there may be more: --cursor {next}");
    }
    out
}

fn last(status: Option<u16>, error: Option<&str>) -> String {
    let error = error.map(|error| show::plain(error, 60));
    match (status, error) {
        (Some(status), Some(error)) => format!("{status} {error}"),
        (Some(status), None) => status.to_string(),
        (None, Some(error)) => error,
        (None, None) => "-".to_owned(),
    }
}

async fn get(options: Get) -> Result<ExitCode> {
    let store = connect(&options.common.database).await?;
    let (pool, id) = (&store.pool, options.id);
    let delivery = deliveries::get(pool, id)
        .await
        .context("reading the delivery")?;
    let made = attempts::of_delivery(pool, id, options.after_attempt)
        .await
        .context("reading its attempts")?;
    if delivery.is_none() && made.is_empty() {
        bail!(
            "nothing is known of {}: either there is no such delivery, or no attempt of it has ended yet, or retention has removed it",
            show::delivery(id)
        );
    }
    let next = made
        .get(attempts::PAGE as usize - 1)
        .map(|last| last.number);
    match options.common.output {
        Output::Json => show::print_json(&get_json(id, delivery.as_ref(), &made, next))?,
        Output::Text => output::print(&get_text(id, delivery.as_ref(), &made, next))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn get_json(id: Uuid, delivery: Option<&Delivery>, made: &[Made], next: Option<u32>) -> Value {
    let attempts: Vec<Value> = made.iter().map(|one| attempt_json(id, one)).collect();
    let mut out = json!({
        "id": show::delivery(id),
        "state": "pending",
        "attempts": attempts,
        "next_attempt_after": next,
    });
    if let (Some(delivery), Some(fields)) = (delivery, out.as_object_mut()) {
        let reason = match &delivery.state {
            State::DeadLetter { reason } => Some(reason.as_str()),
            _ => None,
        };
        let retries: Vec<Value> = delivery
            .retries
            .iter()
            .map(|retry| {
                json!({
                    "state": retry.state, "reason": retry.reason, "attempts": retry.attempts, "finished_at": retry.finished_at,
                    "retried_at": retry.at, "by": retry.by, "job": retry.job.map(show::job),
                })
            })
            .collect();
        for (name, value) in [
            ("state", json!(delivery.state.as_str())),
            ("reason", json!(reason)),
            (
                "event_id",
                json!(ids::format(Prefix::Event, delivery.event_id)),
            ),
            ("namespace", json!(delivery.namespace)),
            (
                "connection",
                show::named_json(Prefix::Connection, &delivery.connection),
            ),
            (
                "destination",
                show::named_json(Prefix::Destination, &delivery.destination),
            ),
            ("created_at", json!(delivery.created_at)),
            ("finished_at", json!(delivery.finished_at)),
            ("retried", json!(delivery.round)),
            ("retries", json!(retries)),
        ] {
            fields.insert(name.to_owned(), value);
        }
    }
    out
}

fn attempt_json(delivery: Uuid, made: &Made) -> Value {
    let job = match made.trigger {
        Trigger::Job(job) => Some(show::job(job)),
        _ => None,
    };
    let body = made.response_body.as_deref();
    let (body, encoding) = match body.map(|body| std::str::from_utf8(body).map_err(|_| body)) {
        None => (None, None),
        Some(Ok(text)) => (Some(text.to_owned()), Some("text")),
        Some(Err(bytes)) => (Some(BASE64_STANDARD.encode(bytes)), Some("base64")),
    };
    let headers = made.response_headers.as_deref().map(|headers| {
        let text = String::from_utf8_lossy(headers);
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines
            .map(|(name, value)| json!([name, value]))
            .collect::<Vec<_>>()
    });
    json!({
        "id": ids::format(Prefix::Attempt, ids::attempt(delivery, u16::try_from(made.number).unwrap_or(u16::MAX))),
        "number": made.number,
        "trigger": made.trigger.as_str(),
        "job": job,
        "started_at": made.started_at,
        "outcome": made.outcome,
        "status": made.status,
        "error": made.error,
        "timings_us": {
            "dns": made.timings.dns_us, "connect": made.timings.connect_us, "tls": made.timings.tls_us,
            "first_byte": made.timings.first_byte_us, "total": made.timings.total_us,
        },
        "response_headers": headers,
        "response_body": body,
        "response_body_encoding": encoding,
        "replica": made.replica,
    })
}

fn get_text(id: Uuid, delivery: Option<&Delivery>, made: &[Made], next: Option<u32>) -> String {
    let mut facts = vec![("delivery", show::delivery(id))];
    match delivery {
        None => facts.push(("state", "pending: it was never finished".to_owned())),
        Some(delivery) => {
            let (connection, destination) = (&delivery.connection, &delivery.destination);
            let state = match &delivery.state {
                State::DeadLetter { reason } => format!("dead_letter: {reason}"),
                State::Pending => "pending: it was set going again".to_owned(),
                state => state.as_str().to_owned(),
            };
            facts.extend([
                ("event", ids::format(Prefix::Event, delivery.event_id)),
                ("namespace", show::plain(&delivery.namespace, 63)),
                ("connection", show::name(Prefix::Connection, connection)),
                ("destination", show::name(Prefix::Destination, destination)),
                ("state", state),
                ("created", show::time(delivery.created_at)),
                ("finished", show::time(delivery.finished_at)),
            ]);
            for retry in &delivery.retries {
                let ended = retry.reason.as_deref().unwrap_or(&retry.state);
                let job = retry.job.map(|job| format!(", by {}", show::job(job)));
                facts.push((
                    "retried",
                    format!(
                        "{} by {}{}; it had ended with {ended} after {} attempts at {}",
                        show::time(retry.at),
                        show::plain(&retry.by, 60),
                        job.unwrap_or_default(),
                        retry.attempts,
                        show::time(retry.finished_at)
                    ),
                ));
            }
        }
    }
    let facts: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    let titles = ["#", "TRIGGER", "STARTED", "OUTCOME", "TOOK", "ANSWER"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(made.iter().map(|made| {
        let took = made
            .timings
            .total_us
            .map_or_else(|| "-".to_owned(), |us| format!("{}ms", us.div_ceil(1000)));
        vec![
            made.number.to_string(),
            made.trigger.as_str().to_owned(),
            show::time(made.started_at),
            made.outcome.clone(),
            took,
            last(made.status, made.error.as_deref()),
        ]
    }));
    let mut out = show::table(&facts) + "\n" + &show::table(&rows);
    if let Some(next) = next {
        let _ = writeln!(out, "there may be more: --after-attempt {next}");
    }
    out
}

async fn retry(options: Retry) -> Result<ExitCode> {
    let store = connect(&options.common.database).await?;
    let request = request(options.delivered_too, &options.by.by);
    let retried = retries::deliveries(&store.pool, &options.ids, request)
        .await
        .context("setting deliveries going")?;
    tell(&store.pool, &retried, options.common.output).await
}

pub(super) async fn event(verb: Event) -> Result<ExitCode> {
    let Event::Retry(options) = verb;
    retry_event(options).await
}

async fn retry_event(options: RetryEvent) -> Result<ExitCode> {
    let store = connect(&options.common.database).await?;
    let event = ids::format(Prefix::Event, options.id);
    let request = request(options.delivered_too, &options.by.by);
    let done = retries::event(&store.pool, options.id, request)
        .await
        .context("setting deliveries going")?;
    let mut retried = match done {
        OfEvent::Retried(retried) => retried,
        OfEvent::NotFound => bail!("there is no event {event}"),
        OfEvent::Gone => {
            bail!("retention has removed event {event}: there is nothing left to send")
        }
    };
    // Of an event one asks for what failed; that the rest has arrived is no news.
    retried
        .refused
        .retain(|refused| refused.why != retries::Refusal::Delivered);
    if retried.going.is_empty()
        && retried.refused.is_empty()
        && options.common.output == Output::Text
    {
        output::print(
            "none of its deliveries is a dead letter; those that are still being attempted go on\n",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    tell(&store.pool, &retried, options.common.output).await
}

fn request(delivered_too: bool, by: &str) -> Request<'_> {
    Request {
        namespace: None,
        delivered_too,
        by,
        job: None,
    }
}

async fn tell(pool: &Pool, retried: &Retried, output: Output) -> Result<ExitCode> {
    match output {
        Output::Json => {
            let going: Vec<String> = retried
                .going
                .iter()
                .map(|going| show::delivery(going.delivery_id))
                .collect();
            let refused: Vec<Value> = retried
                .refused
                .iter()
                .map(|refused| {
                    json!({
                        "id": show::delivery(refused.delivery_id),
                        "reason": refused.why.as_str(),
                        "message": refused.why.to_string(),
                    })
                })
                .collect();
            show::print_json(&json!({"retried": going, "refused": refused}))?;
        }
        Output::Text => {
            let mut out = String::new();
            for going in &retried.going {
                let _ = writeln!(out, "{} goes again", show::delivery(going.delivery_id));
            }
            for refused in &retried.refused {
                let id = show::delivery(refused.delivery_id);
                let _ = writeln!(out, "{id} stays as it is: {}", refused.why);
            }
            let open = destination_state::open(pool).await;
            let open: BTreeSet<Uuid> = open
                .context("looking at circuits")?
                .into_iter()
                .map(|open| open.destination_id)
                .collect();
            let waiting: BTreeSet<Uuid> = retried
                .going
                .iter()
                .map(|going| going.destination_id)
                .filter(|id| open.contains(id))
                .collect();
            for id in waiting {
                let _ = writeln!(
                    out,
                    "the circuit of {} is open: what goes there waits until it closes",
                    ids::format(Prefix::Destination, id)
                );
            }
            output::print(&out)?;
        }
    }
    Ok(match retried.refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
