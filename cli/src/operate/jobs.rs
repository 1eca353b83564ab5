//! `hookstream jobs …`. The gateways do the work; these write down what is wanted and say how far it is.

use super::{
    args::{Create, Database, Filters, Jobs, ListJobs, OneJob, Output, SetRate},
    connect, filter, show,
};
use crate::output;
use anyhow::{Context, Result, bail};
use routing::ids::{self, Prefix};
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode};
use store::{
    deliveries::Filter,
    jobs::{self, Asked, CreateError, Created, Job, State},
};
use uuid::Uuid;

pub(super) async fn run(verb: Jobs) -> Result<ExitCode> {
    match verb {
        Jobs::Create(options) => create(options).await,
        Jobs::List(options) => list(options).await,
        Jobs::Get(options) => {
            let pool = connect(&options.common.database).await?.pool;
            let found = jobs::get(&pool, options.id, None).await;
            one(found.context("reading the job")?, &options)
        }
        Jobs::Stop(options) => {
            let pool = connect(&options.common.database).await?.pool;
            let stopped = jobs::stop(&pool, options.id, None).await;
            one(stopped.context("stopping the job")?, &options)
        }
        Jobs::Resume(options) => {
            let pool = connect(&options.common.database).await?.pool;
            let resumed = jobs::resume(&pool, options.id, None).await;
            one(resumed.context("resuming the job")?, &options)
        }
        Jobs::SetRate(SetRate { id, rate, common }) => {
            let pool = connect(&common.database).await?.pool;
            let set = jobs::set_rate(&pool, id, None, rate).await;
            one(set.context("changing the job")?, &OneJob { id, common })
        }
    }
}

async fn create(options: Create) -> Result<ExitCode> {
    if options.filters == Filters::default() && !options.all {
        bail!(
            "say which dead letters: a filter, as --destination NAME or --from 2h, or --all for every one of namespace {}",
            options.namespace.namespace
        );
    }
    let database: &Database = &options.common.database;
    let store = connect(database).await?;
    let namespace = &options.namespace.namespace;
    let asked = Asked {
        filter: filter(&store.pool, namespace, &options.filters).await?,
        rate_per_second: options.rate_limit,
        most: options.max_deliveries,
    };
    let (id, key) = (Uuid::now_v7(), options.idempotency_key.as_deref());
    let created = jobs::create(&store.pool, id, namespace, &asked, &options.by.by, key).await;
    let created = match created {
        Ok(created) => created,
        Err(CreateError::IdempotencyMismatch { job }) => bail!(
            "this idempotency key belongs to {}, which was asked for something else: use another key \
             (a time written as how long ago it was, as --from 2h, is another one each time)",
            show::job(job)
        ),
        Err(error) => return Err(error).context("creating the job"),
    };
    if options.common.output == Output::Text
        && let Created::Before(job) = &created
    {
        output::print(&format!(
            "this was asked for before: {}\n",
            show::job(job.id)
        ))?;
    }
    tell(created.job(), options.common.output)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(options: ListJobs) -> Result<ExitCode> {
    let store = connect(&options.common.database).await?;
    let namespace = &options.namespace.namespace;
    let (state, before, limit) = (options.state, options.before, options.limit);
    let found = jobs::list(&store.pool, namespace, state, before, limit)
        .await
        .context("reading jobs")?;
    let next = found.get(limit as usize - 1).map(|last| last.id);
    match options.common.output {
        Output::Json => {
            let all: Vec<Value> = found.iter().map(in_json).collect();
            show::print_json(&json!({"jobs": all, "next_before": next.map(show::job)}))?;
        }
        Output::Text if found.is_empty() => {
            output::print(&format!("no such jobs in namespace {namespace}\n"))?;
        }
        Output::Text => {
            let titles = ["JOB", "STATE", "DONE", "RATE", "CREATED", "BY", "OF"];
            let mut rows = vec![titles.map(str::to_owned).to_vec()];
            rows.extend(found.iter().map(|job| {
                vec![
                    show::job(job.id),
                    job.state.as_str().to_owned(),
                    progress(job),
                    format!("{}/s", job.rate_per_second),
                    show::time(job.created_at),
                    show::plain(&job.created_by, 20),
                    described(&job.asked),
                ]
            }));
            let mut out = show::table(&rows);
            if let Some(next) = next {
                let _ = writeln!(out, "there may be more: --before {}", show::job(next));
            }
            output::print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one(job: Option<Job>, options: &OneJob) -> Result<ExitCode> {
    let Some(job) = job else {
        bail!(
            "there is no job {}; one that has ended is forgotten after 30 days",
            show::job(options.id)
        );
    };
    tell(&job, options.common.output)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(job: &Job, output: Output) -> Result<()> {
    if output == Output::Json {
        return show::print_json(&in_json(job));
    }
    let mut facts = vec![
        ("job", show::job(job.id)),
        ("namespace", show::plain(&job.namespace, 63)),
        ("retries", described(&job.asked)),
        ("state", job.state.as_str().to_owned()),
        ("done", progress(job)),
        ("rate", format!("{} a second", job.rate_per_second)),
        (
            "created",
            format!(
                "{} by {}",
                show::time(job.created_at),
                show::plain(&job.created_by, 60)
            ),
        ),
    ];
    if let Some(ended) = job.ended_at {
        facts.push(("ended", show::time(ended)));
    }
    if let Some(error) = &job.error {
        facts.push(("error", show::plain(error, 500)));
    }
    for (why, count) in &job.refused {
        facts.push(("refused", format!("{count}: {why}")));
    }
    if job.state == State::Stopped || job.state == State::Failed {
        let id = show::job(job.id);
        facts.push(("next", format!("hookstream jobs resume {id}")));
    }
    let rows: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    output::print(&show::table(&rows))
}

fn progress(job: &Job) -> String {
    match job.total {
        Some(total) => format!("{} of {total}", job.processed()),
        None => format!("{} so far", job.processed()),
    }
}

/// What a job was asked for, in the words of the flags.
fn described(asked: &Asked) -> String {
    let Filter {
        destination,
        connection,
        reason,
        from,
        until,
        text,
    } = &asked.filter;
    let words = [
        destination.map(|id| format!("destination {}", ids::format(Prefix::Destination, id))),
        connection.map(|id| format!("connection {}", ids::format(Prefix::Connection, id))),
        reason.as_ref().map(|reason| format!("reason {reason}")),
        from.map(|from| format!("from {}", show::time(from))),
        until.map(|until| format!("until {}", show::time(until))),
        text.as_ref()
            .map(|text| format!("text {:?}", show::plain(text, 40))),
        asked.most.map(|most| format!("{most} at most")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    match words.is_empty() {
        true => "all dead letters".to_owned(),
        false => words.join(", "),
    }
}

fn in_json(job: &Job) -> Value {
    let filter = &job.asked.filter;
    json!({
        "id": show::job(job.id),
        "namespace": job.namespace,
        "filter": {
            "destination_id": filter.destination.map(|id| ids::format(Prefix::Destination, id)),
            "connection_id": filter.connection.map(|id| ids::format(Prefix::Connection, id)),
            "reason": filter.reason,
            "from": filter.from,
            "until": filter.until,
            "text": filter.text,
        },
        "max_deliveries": job.asked.most,
        "rate_limit": job.rate_per_second,
        "state": job.state.as_str(),
        "created_by": job.created_by,
        "created_at": job.created_at,
        "ended_at": job.ended_at,
        "error": job.error,
        "total": job.total,
        "processed": job.processed(),
        "retried": job.retried,
        "refused": job.refused,
    })
}
