//! What these commands are told.

use super::{delivery_id, event_id, job_id};
use clap::{Args, Subcommand, ValueEnum};
use jiff::{Span, SpanRelativeTo, Timestamp};
use routing::retry::GaveUp;
use std::path::PathBuf;
use store::{deliveries::Cursor, jobs};
use uuid::Uuid;

/// One of the commands.
pub enum Verb {
    Deliveries(Deliveries),
    Event(Event),
    Jobs(Jobs),
}

#[derive(Clone, Args)]
pub struct Database {
    /// The installation's Postgres, as `postgres://user:password@host:5432/database` [default: none]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// The data folder of a `hookstream dev` that runs, whose private database it is; wins over the URL [default: none]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The URL holds a password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Args)]
pub struct Common {
    #[command(flatten)]
    pub database: Database,

    /// How to print: text for people, json for programs [default: text]
    #[arg(
        short = 'o',
        long,
        value_enum,
        default_value_t,
        hide_default_value = true
    )]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Deliveries {
    /// List dead letters, newest first
    #[command(visible_alias = "dlq")]
    List(List),
    /// Show a delivery with all that became of it, attempt by attempt
    Get(Get),
    /// Send dead letters again, at once; `jobs create` does it for many
    Retry(Retry),
}

#[derive(Debug, Clone, Subcommand)]
pub enum Event {
    /// Send an event again to each destination where it became a dead letter
    Retry(RetryEvent),
}

#[derive(Debug, Clone, Subcommand)]
pub enum Jobs {
    /// Send a filter's worth of dead letters again, in the background and at a rate
    Create(Create),
    /// List jobs, newest first
    List(ListJobs),
    /// Show how far a job is
    Get(OneJob),
    /// Stop a job: once this has returned, it sets nothing more going
    Stop(OneJob),
    /// Let a job go on that was stopped or has failed, where it was
    Resume(OneJob),
    /// Change the rate of a job
    SetRate(SetRate),
}

#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// The namespace that the list is of [default: default]
    #[arg(
        short = 'n',
        long,
        default_value = "default",
        hide_default_value = true
    )]
    pub namespace: String,
}

/// Which dead letters; together they narrow it down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct Filters {
    /// Of this Destination: its name, or its id, by which a deleted one is found too [default: any]
    #[arg(long, value_name = "NAME|ID")]
    pub destination: Option<String>,

    /// By this Connection or Subscription: its name or its id [default: any]
    #[arg(long, value_name = "NAME|ID")]
    pub connection: Option<String>,

    /// Given up for this reason [default: any]
    #[arg(long, value_parser = reason)]
    pub reason: Option<GaveUp>,

    /// Given up then or later: 2026-11-21T17:00:00Z, or how long ago, as 2h or 7d [default: ever]
    #[arg(long, value_parser = time)]
    pub from: Option<Timestamp>,

    /// Given up before then, written the same way [default: now]
    #[arg(long, value_parser = time)]
    pub until: Option<Timestamp>,

    /// With this text in the event's path, query or body (its first 256 KiB), or in the last error [default: any]
    #[arg(long, value_parser = text)]
    pub text: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum State {
    #[default]
    #[value(alias = "failed")]
    DeadLetter,
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Those in this state [default: dead-letter, the only one that can be listed]
    #[arg(
        long,
        alias = "status",
        value_enum,
        default_value_t,
        hide_default_value = true
    )]
    pub state: State,

    #[command(flatten)]
    pub filters: Filters,

    /// How many at most, 1 to 1000 [default: 50]
    #[arg(long, default_value_t = 50, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,

    /// Go on behind a list that ended with this [default: from the newest]
    #[arg(long)]
    pub cursor: Option<Cursor>,

    #[command(flatten)]
    pub namespace: Namespace,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct Get {
    /// The delivery's id (dlv_…), or that of one of its attempts (da_…)
    #[arg(value_name = "ID", value_parser = delivery_id)]
    pub id: Uuid,

    /// Show the hundred attempts behind this number [default: 0, from the first]
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub after_attempt: u32,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct By {
    /// Who asks, as the history shows it [default: the user's name]
    #[arg(
        long,
        env = "USER",
        hide_env_values = true,
        default_value = "cli",
        hide_default_value = true
    )]
    pub by: String,
}

#[derive(Debug, Clone, Args)]
pub struct Retry {
    /// Deliveries' ids (dlv_…), or those of attempts of theirs (da_…); up to 500
    #[arg(value_name = "ID", value_parser = delivery_id, required = true, num_args = 1..=500)]
    pub ids: Vec<Uuid>,

    /// Also what was delivered, or had nothing to send [default: dead letters only]
    #[arg(long)]
    pub delivered_too: bool,

    #[command(flatten)]
    pub by: By,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct RetryEvent {
    /// The event's id (evt_…)
    #[arg(value_name = "ID", value_parser = event_id)]
    pub id: Uuid,

    /// Also where it was delivered, or had nothing to send [default: dead letters only]
    #[arg(long)]
    pub delivered_too: bool,

    #[command(flatten)]
    pub by: By,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    #[command(flatten)]
    pub filters: Filters,

    /// Every dead letter of the namespace, when no filter narrows it down [default: a filter is needed]
    #[arg(long)]
    pub all: bool,

    /// Deliveries set going in a second, 1 to 1000 [default: 10]
    #[arg(long, value_name = "N", default_value_t = jobs::DEFAULT_RATE, hide_default_value = true,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(jobs::MOST_RATE)))]
    pub rate_limit: u32,

    /// Stop after this many [default: all that match]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_deliveries: Option<u64>,

    /// The same key again is the same job: makes it safe to repeat this command [default: none]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,

    #[command(flatten)]
    pub by: By,

    #[command(flatten)]
    pub namespace: Namespace,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct ListJobs {
    /// Those in this state: running, stopped, done, failed [default: any]
    #[arg(long, value_parser = state)]
    pub state: Option<jobs::State>,

    /// How many at most, 1 to 100 [default: 50]
    #[arg(long, default_value_t = 50, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(jobs::PAGE)))]
    pub limit: u32,

    /// Those older than this one [default: from the newest]
    #[arg(long, value_name = "ID", value_parser = job_id)]
    pub before: Option<Uuid>,

    #[command(flatten)]
    pub namespace: Namespace,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct OneJob {
    /// The job's id (job_…)
    #[arg(value_name = "ID", value_parser = job_id)]
    pub id: Uuid,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Clone, Args)]
pub struct SetRate {
    /// The job's id (job_…)
    #[arg(value_name = "ID", value_parser = job_id)]
    pub id: Uuid,

    /// Deliveries set going in a second from now on, 1 to 1000
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(jobs::MOST_RATE)))]
    pub rate: u32,

    #[command(flatten)]
    pub common: Common,
}

fn reason(word: &str) -> Result<GaveUp, String> {
    let word = word.replace('-', "_");
    GaveUp::ALL
        .into_iter()
        .find(|reason| reason.as_str() == word)
        .ok_or_else(|| {
            let words = GaveUp::ALL.map(GaveUp::as_str).join(", ");
            format!("the reasons are {words}")
        })
}

fn state(word: &str) -> Result<jobs::State, String> {
    jobs::State::ALL
        .into_iter()
        .find(|state| state.as_str() == word)
        .ok_or_else(|| "the states are running, stopped, done, failed".to_owned())
}

/// A point in time, or how long ago it was.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = "write a time with its zone, as 2026-11-21T17:00:00Z, or how long ago it was, as 90min, 2h or 7d";
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(|ago| service::clock::now().checked_sub(ago.abs()))
        .map_err(|_| wrong.to_owned())
}

fn text(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains('\0') {
        true => Err("give some text to look for".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn a_time_is_a_point_or_how_long_ago() {
        let point = "2026-11-21T17:00:00Z";
        assert_eq!(time(point).unwrap().to_string(), point);
        assert_eq!(
            time("2026-11-21T18:00:00+01:00").unwrap().to_string(),
            point
        );
        for (text, hours) in [("2h", 2), ("7d", 168), ("1d 2h", 26)] {
            let off = time(text).unwrap() + SignedDuration::from_hours(hours);
            let off = off.duration_since(service::clock::now());
            assert!(off.abs() < SignedDuration::from_secs(60), "{text}");
        }
        for wrong in ["", "soon", "2026-11-21", "99999999d", "12"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reason_is_one_of_those_that_deliveries_are_given_up_for() {
        assert_eq!(reason("too-old"), Ok(GaveUp::TooOld));
        assert_eq!(reason("retries_spent"), Ok(GaveUp::RetriesSpent));
        let error = reason("because").unwrap_err();
        assert!(error.contains("destination_deleted"), "{error}");
    }

    #[test]
    fn an_attempts_id_names_its_delivery() {
        let delivery = Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3344_0000);
        for text in [
            "dlv_0192f3a4b5c67d8e9f00112233440000",
            "da_0192f3a4b5c67d8e9f00112233440007",
            "0192f3a4b5c67d8e9f00112233440000",
        ] {
            assert_eq!(delivery_id(text), Ok(delivery), "{text}");
        }
        for text in ["", "evt_0192f3a4b5c67d8e9f00112233440000", "dlv_1", "7"] {
            assert!(delivery_id(text).is_err(), "{text}");
        }
    }
}
