//! Which shards are this replica's: takes its even part, keeps it, and gives it back.
//!
//! Every replica does the same sums on the same rows, so nobody has to lead: a replica's part is the number of shards
//! divided by the live delivering replicas, rounded up. Free and expired leases are taken up to that part, surplus is
//! given back after its attempts in flight have ended. A replica whose lease has expired counts as dead whatever its
//! heartbeat says: it is its heirs who must not wait.
//!
//! The scheduler acts on a shard only while the lease is trusted by the local clock (`store::lease`); what it writes is
//! fenced by the epoch besides.

use crate::scheduler::{DeliveryMetrics, LeaseEvent};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};
use store::{Lease, Pool, lease, replicas};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// Between two rounds that others asked for, at least. After each new routing table every replica tells every other that
/// it has it, which would be as many rounds as replicas, on each of them.
const QUIET: Duration = Duration::from_millis(500);

/// The role, in a replica's heartbeat, of those that share the shards.
pub const DELIVERY: &str = "delivery";

pub(crate) struct Leases {
    pub(crate) pool: Pool,
    pub(crate) replica: Arc<str>,
    pub(crate) shards: u16,
    pub(crate) ttl: Duration,
    pub(crate) held: BTreeMap<u16, Held>,
    /// More than our part, seen in the last round.
    pub(crate) surplus: usize,
    /// Replicas whose lease we saw expired, and when: their last heartbeat may look fresh for a while.
    pub(crate) dead: HashMap<String, Instant>,
    /// Since when there have been shards that nobody holds.
    pub(crate) free_since: Option<Instant>,
    pub(crate) metrics: DeliveryMetrics,
    /// To the scheduler.
    pub(crate) events: Box<dyn Fn(LeaseEvent) + Send + Sync>,
}

pub(crate) struct Held {
    lease: Lease,
    /// The scheduler was asked to let it go.
    leaving: bool,
}

/// What the scheduler says back.
#[derive(Debug)]
pub(crate) enum Released {
    /// Nothing of this shard is under way any more that began in this epoch.
    Shard(u16, i64),
    /// From now on no shard is taken.
    Retiring,
}

impl Leases {
    /// Runs until the scheduler is gone, then gives back what is left.
    pub(crate) async fn run(
        mut self,
        mut released: mpsc::UnboundedReceiver<Released>,
        wake: Arc<Notify>,
    ) {
        let period = self.ttl / 3;
        let mut retiring = false;
        let mut next = Instant::now();
        let (mut woken, mut quiet_until) = (false, next);
        loop {
            tokio::select! {
                message = released.recv() => {
                    let Some(first) = message else { break };
                    // Whatever else has been let go by now goes in the same statement.
                    let messages = std::iter::once(first).chain(std::iter::from_fn(|| released.try_recv().ok()));
                    let mut shards = Vec::new();
                    for message in messages {
                        match message {
                            Released::Shard(shard, epoch) => shards.push((shard, epoch)),
                            Released::Retiring => retiring = true,
                        }
                    }
                    self.release(&shards).await;
                    self.tell_the_others(retiring).await;
                }
                () = wake.notified(), if !retiring => {
                    woken = true;
                    next = next.min(quiet_until);
                }
                () = tokio::time::sleep_until(next) => {
                    if std::mem::take(&mut woken) {
                        quiet_until = Instant::now() + QUIET;
                    }
                    // After a failure sooner: the trust in what we hold is running out.
                    let pause = if self.round(retiring).await { period } else { period.min(Duration::from_millis(250)) };
                    next = Instant::now() + pause;
                }
            }
        }
        let epochs = self.held.iter();
        let rest: Vec<(u16, i64)> = epochs
            .map(|(shard, held)| (*shard, held.lease.epoch))
            .collect();
        self.release(&rest).await;
    }

    /// Renews, then balances. False: the database didn't answer.
    pub(crate) async fn round(&mut self, retiring: bool) -> bool {
        let done = match self.renew().await {
            Ok(()) if retiring => Ok(()),
            Ok(()) => self.balance().await,
            Err(error) => Err(error),
        };
        self.metrics.shards_held.set(self.held.len() as i64);
        if let Err(error) = &done {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                held = self.held.len(),
                "the shards' leases were not renewed"
            );
        }
        done.is_ok()
    }

    async fn renew(&mut self) -> store::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let leases: Vec<Lease> = self.held.values().map(|held| held.lease.clone()).collect();
        let renewed = lease::renew_many(&self.pool, &leases, self.ttl).await?;
        let mut trusted = Vec::with_capacity(renewed.len());
        for lease in renewed {
            let Some(shard) = lease::parse_shard(&lease.name) else {
                continue;
            };
            if let Some(held) = self.held.get_mut(&shard) {
                trusted.push((shard, lease.trusted_until));
                held.lease = lease;
            }
        }
        let still: HashSet<u16> = trusted.iter().map(|(shard, _)| *shard).collect();
        let lost: Vec<u16> = self
            .held
            .keys()
            .copied()
            .filter(|shard| !still.contains(shard))
            .collect();
        self.held.retain(|shard, _| still.contains(shard));
        (self.events)(LeaseEvent::Trusted(trusted));
        if !lost.is_empty() {
            tracing::warn!(shards = lost.len(), "leases were lost to another replica");
            (self.events)(LeaseEvent::Lost(lost));
        }
        Ok(())
    }

    async fn balance(&mut self) -> store::Result<()> {
        let rows = lease::list(&self.pool, "shard/").await?;
        let now = Instant::now();
        // Heartbeats come every few seconds whatever the leases' time to live.
        let fresh = (self.ttl * 2).max(Duration::from_secs(10));
        self.dead
            .retain(|_, seen| now.duration_since(*seen) <= fresh);
        let mut taken = BTreeSet::new();
        for row in &rows {
            match (&row.holder, row.expired) {
                (Some(holder), true) if **holder != *self.replica => {
                    self.dead.insert(holder.clone(), now);
                }
                (Some(_), false) => {
                    taken.extend(lease::parse_shard(&row.name));
                }
                _ => {}
            }
        }
        let mut live = replicas::live(&self.pool, fresh).await?;
        live.retain(|other| {
            *other.id != *self.replica && other.roles.iter().any(|role| role == DELIVERY)
        });
        let free = usize::from(self.shards)
            - (0..self.shards)
                .filter(|shard| taken.contains(shard) || self.held.contains_key(shard))
                .count();
        if free == 0 {
            self.free_since = None;
        } else if now.duration_since(*self.free_since.get_or_insert(now)) >= self.ttl {
            // Somebody leaves shards lying: a process that died before it took any, and whose heartbeat looks fresh.
            let holds = |id: &str| rows.iter().any(|row| row.holder.as_deref() == Some(id));
            let idle = live.iter().filter(|other| !holds(&other.id));
            self.dead.extend(idle.map(|other| (other.id.clone(), now)));
        }
        live.retain(|other| !self.dead.contains_key(&other.id));
        let others = live.len();
        let part = usize::from(self.shards).div_ceil(others + 1);
        let staying = self.held.values().filter(|held| !held.leaving).count();
        if staying > part {
            // Seen twice: a replica that only starts or ends doesn't set shards moving to and fro.
            let seen = staying - part;
            let surplus = seen.min(std::mem::replace(&mut self.surplus, seen));
            let leaving: Vec<u16> = self
                .held
                .iter()
                .rev()
                .filter(|(_, held)| !held.leaving)
                .map(|(shard, _)| *shard)
                .take(surplus)
                .collect();
            for shard in &leaving {
                self.held
                    .get_mut(shard)
                    .expect("chosen from the map just now")
                    .leaving = true;
            }
            if !leaving.is_empty() {
                tracing::info!(
                    shards = leaving.len(),
                    replicas = others + 1,
                    "giving shards to other replicas"
                );
                (self.events)(LeaseEvent::Release(leaving));
            }
            return Ok(());
        }
        self.surplus = 0;
        let free = (0..self.shards)
            .filter(|shard| !taken.contains(shard) && !self.held.contains_key(shard));
        // Each replica begins at another place, so that two that start at once don't queue for the same rows.
        let start = usize::from(self.shards)
            * usize::from(
                self.replica
                    .bytes()
                    .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)),
            )
            / 256;
        let mut names: Vec<String> = free.map(lease::shard_name).collect();
        let turn = names.partition_point(|name| {
            lease::parse_shard(name).is_some_and(|shard| usize::from(shard) < start)
        });
        names.rotate_left(turn);
        names.truncate(part - staying);
        if names.is_empty() {
            return Ok(());
        }
        let gained = lease::acquire_many(&self.pool, &names, &self.replica, self.ttl).await?;
        let mut shards = Vec::with_capacity(gained.len());
        for lease in gained {
            if let Some(shard) = lease::parse_shard(&lease.name) {
                shards.push((shard, lease.epoch, lease.trusted_until));
                self.held.insert(
                    shard,
                    Held {
                        lease,
                        leaving: false,
                    },
                );
            }
        }
        if !shards.is_empty() {
            tracing::info!(
                shards = shards.len(),
                held = self.held.len(),
                replicas = others + 1,
                "took shards"
            );
            (self.events)(LeaseEvent::Gained(shards));
        }
        Ok(())
    }

    /// Gives back what is still held in that epoch. A shard that was lost and taken again meanwhile stays: the scheduler
    /// let go of the earlier one.
    async fn release(&mut self, shards: &[(u16, i64)]) {
        let mut leases = Vec::with_capacity(shards.len());
        for (shard, epoch) in shards {
            if let Entry::Occupied(held) = self.held.entry(*shard)
                && held.get().lease.epoch == *epoch
            {
                leases.push(held.remove().lease);
            }
        }
        self.metrics.shards_held.set(self.held.len() as i64);
        if leases.is_empty() {
            return;
        }
        if let Err(error) = lease::release_many(&self.pool, &leases).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                shards = leases.len(),
                "leases were not released; they expire"
            );
        } else {
            tracing::info!(shards = leases.len(), "released shards");
        }
    }

    /// Wakes the other replicas' leases at once. One that retires also leaves the replicas: its heartbeat has stopped.
    async fn tell_the_others(&self, retiring: bool) {
        let told = async {
            if retiring {
                replicas::leave(&self.pool, &self.replica).await?;
            }
            replicas::announce(&self.pool).await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "other replicas take the shards on their timers");
        }
    }
}

#[cfg(test)]
mod tests;
