//! `hookstream deliveries`, `events` and `jobs`: looking at what was given up and sending it again, on the installation's
//! database.
//!
//! Whoever has the database's URL is its administrator: ids are found in every namespace, lists are of one. Lists are
//! bounded and say how to go on. Exit code 1 also when something that was asked for was refused; the reason is there.
//! No key ring is needed: attempts and their answers aren't sealed.

pub mod args;
mod deliveries;
mod jobs;
mod show;

use anyhow::{Context, Result, bail};
use args::{Database, Filters, Verb};
use routing::ids::{self, Prefix};
use std::process::ExitCode;
use store::{Pool, Store, deliveries::Filter, routes};
use uuid::Uuid;

/// Where `hookstream dev` writes the URL of its private database while it runs, in its data folder.
pub(crate) const URL_FILE: &str = "database-url";

pub(crate) fn run(verb: Verb) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting")?;
    runtime.block_on(async {
        match verb {
            Verb::Deliveries(verb) => deliveries::run(verb).await,
            Verb::Event(verb) => deliveries::event(verb).await,
            Verb::Jobs(verb) => jobs::run(verb).await,
        }
    })
}

async fn connect(database: &Database) -> Result<Store> {
    let url = match (&database.data_dir, &database.database_url) {
        (Some(folder), _) => {
            let path = folder.join(URL_FILE);
            std::fs::read_to_string(&path).with_context(|| {
                format!(
                    "{}: is this the data folder of a `hookstream dev` that runs, with a database of its own?",
                    path.display()
                )
            })?
        }
        (None, Some(url)) => url.clone(),
        (None, None) => bail!(
            "which database? Set DATABASE_URL or --database-url to the installation's, or --data-dir to the data folder of a \
             `hookstream dev` that runs (it says at its start where events are kept)"
        ),
    };
    let options = store::Options {
        max_connections: 1,
        application_name: "hookstream".into(),
        ..store::Options::new(url.trim())
    };
    Store::connect(options)
        .await
        .context("the database can't be reached")
}

/// The filter that the flags say, with names looked up.
async fn filter(pool: &Pool, namespace: &str, flags: &Filters) -> Result<Filter> {
    let destination = match &flags.destination {
        Some(text) => Some(resource(pool, namespace, text, &DESTINATION, "--destination").await?),
        None => None,
    };
    let connection = match &flags.connection {
        Some(text) => Some(resource(pool, namespace, text, &CONNECTION, "--connection").await?),
        None => None,
    };
    Ok(Filter {
        destination,
        connection,
        reason: flags.reason.map(|reason| reason.as_str().to_owned()),
        from: flags.from,
        until: flags.until,
        text: flags.text.clone(),
    })
}

/// A kind of resource, as flags name it.
struct Kind {
    name: &'static str,
    prefixes: &'static [&'static str],
    kinds: &'static [&'static str],
}

const DESTINATION: Kind = Kind {
    name: "Destination",
    prefixes: &["dst_"],
    kinds: &["destination"],
};

const CONNECTION: Kind = Kind {
    name: "Connection or Subscription",
    prefixes: &["conn_", "sub_"],
    kinds: &["connection", "subscription"],
};

async fn resource(
    pool: &Pool,
    namespace: &str,
    text: &str,
    kind: &Kind,
    flag: &str,
) -> Result<Uuid> {
    let hex = kind.prefixes.iter().find_map(|p| text.strip_prefix(p));
    if let Some(id) = hex.and_then(|hex| Uuid::try_parse(hex).ok()) {
        return Ok(id);
    }
    let found = routes::find(pool, kind.kinds, namespace, text)
        .await
        .context("looking for the resource")?;
    found.with_context(|| {
        format!(
            "{flag}: there is no {} `{text}` in namespace `{namespace}`, and there was none lately: give its name, or its id ({}…)",
            kind.name, kind.prefixes[0]
        )
    })
}

/// A delivery by its own id or by that of one of its attempts.
fn delivery_id(text: &str) -> Result<Uuid, String> {
    let attempt = ids::parse(Prefix::Attempt, text);
    let bare = || Uuid::try_parse(text).ok();
    attempt
        .or_else(|| ids::parse(Prefix::Delivery, text))
        .or_else(bare)
        .map(ids::delivery)
        .ok_or_else(|| {
            "this is no delivery's id (dlv_ and 32 hex digits), nor an attempt's (da_…)".to_owned()
        })
}

fn event_id(text: &str) -> Result<Uuid, String> {
    ids::parse(Prefix::Event, text)
        .or_else(|| Uuid::try_parse(text).ok())
        .ok_or_else(|| "this is no event's id (evt_ and 32 hex digits)".to_owned())
}

fn job_id(text: &str) -> Result<Uuid, String> {
    ids::parse(Prefix::Job, text)
        .or_else(|| Uuid::try_parse(text).ok())
        .ok_or_else(|| "this is no job's id (job_ and 32 hex digits)".to_owned())
}
