//! Which circuits aren't closed, as the gateways have written it: read in one query for all destinations.
//!
//! What a status shows is slower than a circuit is. A probe that is answered at once leaves it Open; HalfOpen is a probe
//! that takes long, or nothing to try: seen twice in a row. So a receiver that is down costs two writes, one when it goes
//! and one when it comes back.

use jiff::Timestamp;
use service::{clock, log::chain};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{
    Pool,
    destination_state::{self, Open},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How late a status shows what has become of a circuit, and how long it has to be half-open before it shows that.
pub const POLL: Duration = Duration::from_secs(3);

/// A read that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A destination's circuit, as its status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    Closed,
    /// Since then, if that's known.
    Open(Option<Timestamp>),
    HalfOpen(Option<Timestamp>),
}

/// The circuits of all destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circuits {
    /// Those that aren't closed; `None`: not read yet.
    open: Option<Arc<BTreeMap<Uuid, Circuit>>>,
}

impl Circuits {
    pub fn new(open: impl IntoIterator<Item = (Uuid, Circuit)>) -> Circuits {
        Circuits {
            open: Some(Arc::new(open.into_iter().collect())),
        }
    }

    /// `None`: not known yet.
    pub fn of(&self, destination: Uuid) -> Option<Circuit> {
        let open = self.open.as_ref()?;
        Some(open.get(&destination).copied().unwrap_or(Circuit::Closed))
    }

    /// The destinations whose circuit isn't what it was; `None`: any may be.
    pub fn changed_since(&self, before: &Circuits) -> Option<Vec<Uuid>> {
        let (Some(now), Some(then)) = (&self.open, &before.open) else {
            return match self.open == before.open {
                true => Some(Vec::new()),
                false => None,
            };
        };
        if Arc::ptr_eq(now, then) {
            return Some(Vec::new());
        }
        let all: BTreeSet<&Uuid> = now.keys().chain(then.keys()).collect();
        let changed = all.into_iter().filter(|id| now.get(*id) != then.get(*id));
        Some(changed.copied().collect())
    }
}

/// Reads them, again and again.
#[derive(Debug, Default)]
struct Reader {
    /// Half-open when they were last looked at.
    half: BTreeSet<Uuid>,
}

impl Reader {
    fn take(&mut self, open: Vec<Open>) -> Circuits {
        let mut half = BTreeSet::new();
        let circuits = open.into_iter().map(|open| {
            let id = open.destination_id;
            if open.half {
                half.insert(id);
            }
            let circuit = match open.half && self.half.contains(&id) {
                true => Circuit::HalfOpen(open.opened_at),
                false => Circuit::Open(open.opened_at),
            };
            (id, circuit)
        });
        let circuits = Circuits::new(circuits);
        self.half = half;
        circuits
    }
}

/// Runs until the token is cancelled. While the database is away, what was read last stays.
pub async fn run(pool: Pool, circuits: watch::Sender<Circuits>, token: CancellationToken) {
    let mut reader = Reader::default();
    let mut failed = false;
    loop {
        let began = clock::instant();
        let read = tokio::select! {
            () = token.cancelled() => return,
            read = tokio::time::timeout(TIMEOUT, destination_state::open(&pool)) => read,
        };
        match read {
            Ok(Ok(open)) => {
                failed = false;
                let next = reader.take(open);
                circuits.send_if_modified(|now| {
                    let differs = *now != next;
                    if differs {
                        *now = next;
                    }
                    differs
                });
            }
            other if !failed => {
                failed = true;
                let why = other.ok().and_then(Result::err);
                let why = why.map_or("no answer".to_owned(), |error| chain(&error));
                tracing::warn!(why, "the circuits can't be read; will try again");
            }
            _ => {}
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep_until((began + POLL).into()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(id: u128, half: bool) -> Open {
        Open {
            destination_id: Uuid::from_u128(id),
            opened_at: None,
            half,
        }
    }

    #[test]
    fn a_probe_that_is_answered_at_once_is_not_shown() {
        let (mut reader, id) = (Reader::default(), Uuid::from_u128(1));
        let mut shown = |rows| reader.take(rows).of(id);
        assert_eq!(shown(vec![open(1, false)]), Some(Circuit::Open(None)));
        assert_eq!(shown(vec![open(1, true)]), Some(Circuit::Open(None)));
        assert_eq!(shown(vec![open(1, false)]), Some(Circuit::Open(None)));
        assert_eq!(shown(vec![open(1, true)]), Some(Circuit::Open(None)));
        assert_eq!(shown(vec![open(1, true)]), Some(Circuit::HalfOpen(None)));
        assert_eq!(shown(vec![]), Some(Circuit::Closed));
    }

    #[test]
    fn only_what_changed_is_looked_at() {
        let circuits = |ids: &[u128]| {
            Circuits::new(
                ids.iter()
                    .map(|id| (Uuid::from_u128(*id), Circuit::Open(None))),
            )
        };
        let (unknown, before, after) = (Circuits::default(), circuits(&[1, 2]), circuits(&[2, 3]));
        assert_eq!(unknown.of(Uuid::from_u128(1)), None);
        assert_eq!(before.changed_since(&unknown), None);
        assert_eq!(unknown.changed_since(&unknown), Some(vec![]));
        assert_eq!(before.changed_since(&before.clone()), Some(vec![]));
        assert_eq!(
            after.changed_since(&before),
            Some([1, 3].map(Uuid::from_u128).into())
        );
    }
}
