//! The routing table on its way from the operator to the gateways, by revision.
//!
//! One transaction per publish, by the leader only: it locks the head, checks that the epoch is still its own, writes what
//! changed and advances the head. Rows carry the revision that last changed them, so a gateway reads what is new since
//! its own; removed rows stay as tombstones until every live replica has passed them.

use crate::{
    Keyring, Lease, Pool,
    error::{Error, Result},
    pool::{On, Session},
};
use routing::{
    row::{Kind, Row, RowKey, Spec, parse_payload},
    secret::Secret,
};
use sqlx::{
    Row as _,
    postgres::{PgBindIterExt, PgRow},
};
use std::{collections::HashMap, error::Error as StdError, sync::Arc};
use uuid::Uuid;

/// The term of one leader. Writes of an older one are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// How far the table has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Head {
    pub epoch: i64,
    pub revision: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The head's revision; unchanged when nothing was to be written.
    pub revision: i64,
    /// Rows written and removed.
    pub changed: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another leader has begun an epoch. Nothing was written.
    #[error("another operator leads by now; nothing was published")]
    Fenced,
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a gateway or a new leader reads.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub head: Head,
    pub rows: Vec<Arc<Row>>,
    pub removed: Vec<RowKey>,
    /// Rows that this version must not act on. The reader keeps what it had of them.
    pub unreadable: Vec<Unreadable>,
    /// `load_since` could not tell what was removed since (its tombstones are gone, or the epoch's revisions began anew):
    /// the answer is the whole table, and what is not in it is to be dropped.
    pub whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// As in the table; a newer operator may have kinds that we don't know.
    pub kind: String,
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    /// The whole chain, without secrets.
    pub why: String,
}

/// The epoch is at least the time in milliseconds: a database restored from a backup then never repeats an epoch that
/// was used between the backup and the restore, and every gateway notices that its revisions are another history's.
const BEGIN_EPOCH: &str = "\
UPDATE route_head SET epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint), leader = $1 RETURNING epoch";

/// Begins a new epoch as the holder of `lease`. [`Error::Fenced`] when the lease is no longer its holder's.
///
/// Also for a leader that finds the head behind what it has published: the database was restored.
pub async fn begin_epoch(pool: &Pool, leader: &str, lease: &Lease) -> Result<Epoch> {
    let mut session = pool.begin().await?;
    let mine = pool
        .query("SELECT FROM lease WHERE name = $1 AND holder = $2 AND epoch = $3 FOR SHARE")
        .bind(&lease.name)
        .bind(&*lease.holder)
        .bind(lease.epoch)
        .optional(&mut session)
        .await?;
    if mine.is_none() {
        return Err(Error::Fenced);
    }
    let row = pool
        .query(BEGIN_EPOCH)
        .bind(leader)
        .one(&mut session)
        .await?;
    session.done().await?;
    Ok(Epoch(row.try_get("epoch")?))
}

/// Rows that one statement writes, and bytes of payload and secrets in them: bounds the memory of a first publish, here and in
/// Postgres. A row that is larger by itself goes alone.
const CHUNK_ROWS: usize = 1_000;
const CHUNK_BYTES: usize = 8 << 20;

/// By key, row by row, however empty the table was when this was planned (see `outcomes`).
const DIGESTS: &str = "\
SELECT r.kind, r.uid, r.digest FROM unnest($1::text[], $2::uuid[]) AS k (kind, uid)
CROSS JOIN LATERAL (SELECT * FROM routes r WHERE r.kind = k.kind AND r.uid = k.uid AND NOT r.deleted LIMIT 1) r";

const UPSERT: &str = "\
INSERT INTO routes (kind, uid, namespace, name, generation, revision, payload, sealed, digest, deleted)
SELECT kind, uid, namespace, name, generation, $1, payload, sealed, digest, false
FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[])
    AS n (kind, uid, namespace, name, generation, payload, sealed, digest)
ON CONFLICT (kind, uid) DO UPDATE SET namespace = excluded.namespace, name = excluded.name, generation = excluded.generation,
    revision = excluded.revision, payload = excluded.payload, sealed = excluded.sealed, digest = excluded.digest, deleted = false";

const REMOVE: &str = "\
UPDATE routes SET deleted = true, revision = $1, payload = '', sealed = '', digest = ''
WHERE ctid = ANY (ARRAY(
    SELECT (SELECT r.ctid FROM routes r WHERE r.kind = k.kind AND r.uid = k.uid AND NOT r.deleted)
    FROM unnest($2::text[], $3::uuid[]) AS k (kind, uid)))";

/// Publishes what changed, in one transaction. Rows that are there already with the same content are not written again,
/// and when nothing remains the head stays as it is; so it may be called again when the first call's fate is unknown.
/// Each key at most once in `changed`.
pub async fn publish(
    pool: &Pool,
    epoch: Epoch,
    leader: &str,
    changed: &[Row],
    removed: &[RowKey],
    keyring: &Keyring,
) -> Result<Published, PublishError> {
    let mut session = pool.begin().await?;
    let row = pool
        .query("SELECT epoch, revision FROM route_head FOR UPDATE")
        .one(&mut session)
        .await?;
    let head = read_head(&row)?;
    if head.epoch != epoch.0 {
        return Err(PublishError::Fenced);
    }
    let revision = head.revision + 1;
    let mut written = 0;
    for chunk in chunks(changed) {
        written += upsert(pool, &mut session, revision, chunk, keyring).await?;
    }
    if !removed.is_empty() {
        let query = pool
            .query(REMOVE)
            .bind(revision)
            .bind(removed.iter().map(|key| key.kind.as_str()).bind_iter())
            .bind(removed.iter().map(|key| key.uid).bind_iter());
        written += query.run(&mut session).await?.rows_affected();
    }
    if written == 0 {
        session.done().await?;
        return Ok(Published {
            revision: head.revision,
            changed: 0,
        });
    }
    let query = pool
        .query("UPDATE route_head SET revision = $1, leader = $2")
        .bind(revision)
        .bind(leader);
    query.run(&mut session).await?;
    let hint = pool
        .query("SELECT pg_notify('hookstream_routes', $1)")
        .bind(format!("{}.{revision}", epoch.0));
    hint.run(&mut session).await?;
    session.done().await?;
    Ok(Published {
        revision,
        changed: u32::try_from(written).unwrap_or(u32::MAX),
    })
}

/// A row with its payload, made once.
struct Made<'a> {
    row: &'a Row,
    payload: Vec<u8>,
}

impl Made<'_> {
    fn bytes(&self) -> usize {
        let secrets = self.row.secrets.iter();
        self.payload.len() + secrets.map(|secret| secret.expose().len()).sum::<usize>()
    }
}

/// The rows in their order, cut into what one statement writes. Payloads are made for one chunk at a time.
fn chunks(rows: &[Row]) -> impl Iterator<Item = Vec<Made<'_>>> {
    let made = rows.iter().map(|row| Made {
        row,
        payload: row.payload(),
    });
    let mut made = made.peekable();
    std::iter::from_fn(move || {
        let mut chunk = Vec::from_iter(made.next());
        let mut bytes: usize = chunk.iter().map(Made::bytes).sum();
        while chunk.len() < CHUNK_ROWS
            && let Some(next) = made.next_if(|next| bytes + next.bytes() <= CHUNK_BYTES)
        {
            bytes += next.bytes();
            chunk.push(next);
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Writes those of the rows that differ from what is there. Returns how many.
async fn upsert(
    pool: &Pool,
    session: &mut Session,
    revision: i64,
    rows: Vec<Made<'_>>,
    keyring: &Keyring,
) -> Result<u64> {
    struct New<'a> {
        row: &'a Row,
        payload: Vec<u8>,
        digest: [u8; 32],
    }
    let there = pool
        .query(DIGESTS)
        .bind(rows.iter().map(|made| made.row.kind().as_str()).bind_iter())
        .bind(rows.iter().map(|made| made.row.uid).bind_iter())
        .all(session)
        .await?;
    let mut digests: HashMap<(&str, Uuid), &[u8]> = HashMap::with_capacity(there.len());
    for row in &there {
        digests.insert(
            (row.try_get("kind")?, row.try_get("uid")?),
            row.try_get("digest")?,
        );
    }
    let new: Vec<New<'_>> = rows
        .into_iter()
        .map(|Made { row, payload }| New {
            row,
            digest: keyring.digest(row, &payload),
            payload,
        })
        .filter(|new| {
            digests.get(&(new.row.kind().as_str(), new.row.uid)) != Some(&&new.digest[..])
        })
        .collect();
    if new.is_empty() {
        return Ok(0);
    }
    let query = pool
        .query(UPSERT)
        .bind(revision)
        .bind(new.iter().map(|new| new.row.kind().as_str()).bind_iter())
        .bind(new.iter().map(|new| new.row.uid).bind_iter())
        .bind(new.iter().map(|new| &*new.row.namespace).bind_iter())
        .bind(new.iter().map(|new| &*new.row.name).bind_iter())
        .bind(new.iter().map(|new| new.row.generation).bind_iter())
        .bind(new.iter().map(|new| &new.payload[..]).bind_iter())
        .bind(
            new.iter()
                .map(|new| keyring.seal(new.row.key(), &new.payload, &new.row.secrets))
                .bind_iter(),
        )
        .bind(new.iter().map(|new| &new.digest[..]).bind_iter());
    Ok(query.run(session).await?.rows_affected())
}

/// The head alone: what a poll looks at.
pub async fn head(pool: &Pool) -> Result<Head> {
    let mut session = pool.session().await?;
    let row = pool
        .query("SELECT epoch, revision FROM route_head")
        .one(&mut session)
        .await?;
    session.done().await?;
    read_head(&row)
}

fn read_head(row: &PgRow) -> Result<Head> {
    Ok(Head {
        epoch: row.try_get("epoch")?,
        revision: row.try_get("revision")?,
    })
}

const SINCE: &str = "\
SELECT kind, uid, namespace, name, generation, payload, sealed, deleted FROM routes WHERE revision > $1 ORDER BY revision, kind, uid";
/// Those of [`SINCE`] are not repeated.
const AGAIN: &str = "\
SELECT r.kind, r.uid, r.namespace, r.name, r.generation, r.payload, r.sealed, r.deleted
FROM unnest($1::text[], $2::uuid[]) AS k (kind, uid) CROSS JOIN LATERAL (
    SELECT * FROM routes r WHERE r.kind = k.kind AND r.uid = k.uid AND r.revision <= $3 AND NOT r.deleted LIMIT 1
) r";
const ALL: &str = "\
SELECT kind, uid, namespace, name, generation, payload, sealed, deleted FROM routes WHERE NOT deleted ORDER BY kind, uid";

/// What changed behind `since`. When that cannot be told, the whole table ([`Loaded::whole`]): after a change of epoch
/// (the database may have been restored), or when the tombstones behind `since` are gone.
pub async fn load_since(pool: &Pool, since: Head, keyring: &Keyring) -> Result<Loaded> {
    load_since_and(pool, since, &HashMap::new(), keyring).await
}

/// The same, and once more the rows with these kinds and UIDs, which could not be read before: each is in `rows`, in
/// `unreadable`, or no longer there.
pub async fn load_since_and(
    pool: &Pool,
    since: Head,
    again: &HashMap<Uuid, String>,
    keyring: &Keyring,
) -> Result<Loaded> {
    load(pool, Some(since), again, keyring).await
}

/// The whole table.
pub async fn load_all(pool: &Pool, keyring: &Keyring) -> Result<Loaded> {
    load(pool, None, &HashMap::new(), keyring).await
}

async fn load(
    pool: &Pool,
    since: Option<Head>,
    again: &HashMap<Uuid, String>,
    keyring: &Keyring,
) -> Result<Loaded> {
    let mut session = pool.begin_snapshot().await?;
    let row = pool
        .query("SELECT epoch, revision, pruned FROM route_head")
        .one(&mut session)
        .await?;
    let head = read_head(&row)?;
    let pruned: i64 = row.try_get("pruned")?;
    let readable = |since: &Head| {
        since.epoch == head.epoch && (pruned..=head.revision).contains(&since.revision)
    };
    let since = since.filter(readable);
    let mut rows = match since {
        Some(since) => {
            pool.query(SINCE)
                .bind(since.revision)
                .all(&mut session)
                .await?
        }
        None => pool.query(ALL).all(&mut session).await?,
    };
    if let Some(since) = since
        && !again.is_empty()
    {
        let query = pool
            .query(AGAIN)
            .bind(again.values().map(String::as_str).bind_iter())
            .bind(again.keys().copied().bind_iter())
            .bind(since.revision);
        rows.extend(query.all(&mut session).await?);
    }
    session.done().await?;
    let mut loaded = Loaded {
        head,
        whole: since.is_none(),
        ..Loaded::default()
    };
    for row in &rows {
        sort_in(&mut loaded, row, keyring)?;
    }
    Ok(loaded)
}

/// Puts one row of the table where it belongs.
fn sort_in(loaded: &mut Loaded, row: &PgRow, keyring: &Keyring) -> Result<()> {
    let (kind, uid): (&str, Uuid) = (row.try_get("kind")?, row.try_get("uid")?);
    let (namespace, name, generation) = (
        row.try_get("namespace")?,
        row.try_get("name")?,
        row.try_get("generation")?,
    );
    let deleted: bool = row.try_get("deleted")?;
    let Some(known) = Kind::parse(kind) else {
        // The tombstone of a kind that we never had is nothing to us.
        if !deleted {
            let why = format!("kind {kind} is of a newer operator");
            loaded.unreadable.push(Unreadable {
                kind: kind.to_owned(),
                uid,
                namespace,
                name,
                generation,
                why,
            });
        }
        return Ok(());
    };
    let key = RowKey { kind: known, uid };
    if deleted {
        loaded.removed.push(key);
        return Ok(());
    }
    match read_row(
        key,
        row.try_get("payload")?,
        row.try_get("sealed")?,
        keyring,
    ) {
        Ok((spec, secrets)) => loaded.rows.push(Arc::new(Row {
            uid,
            namespace,
            name,
            generation,
            spec,
            secrets,
        })),
        Err(why) => loaded.unreadable.push(Unreadable {
            kind: kind.to_owned(),
            uid,
            namespace,
            name,
            generation,
            why,
        }),
    }
    Ok(())
}

fn read_row(
    key: RowKey,
    payload: &[u8],
    sealed: &[u8],
    keyring: &Keyring,
) -> Result<(Spec, Vec<Secret>), String> {
    let spec = parse_payload(payload).map_err(|error| chain(&error))?;
    let secrets = keyring
        .open(key, payload, sealed)
        .map_err(|error| chain(&error))?;
    // What a row is found by and what it says must agree.
    let matches = matches!(
        (&spec, key.kind),
        (Spec::Source(_), Kind::Source)
            | (Spec::Destination(_), Kind::Destination)
            | (Spec::Connection(_), Kind::Connection)
            | (Spec::Topic(_), Kind::Topic)
            | (Spec::Subscription(_), Kind::Subscription)
    );
    if matches {
        Ok((spec, secrets))
    } else {
        Err(format!("the payload is not a {}'s", key.kind.as_str()))
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// A resource's UID by its name, and by that of the newest one of those that were deleted if there's none now. The names
/// aren't indexed: for a person who asks, not for a hot path.
pub async fn find(
    pool: &Pool,
    kinds: &[&str],
    namespace: &str,
    name: &str,
) -> Result<Option<Uuid>> {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut session = pool.session().await?;
    let row = pool
        .query(
            "SELECT uid FROM routes WHERE kind = ANY ($1) AND namespace = $2 AND name = $3
             ORDER BY deleted, revision DESC, kind LIMIT 1",
        )
        .bind(kinds)
        .bind(namespace.to_owned())
        .bind(name.to_owned())
        .optional(&mut session)
        .await?;
    session.done().await?;
    row.map(|row| Ok(row.try_get("uid")?)).transpose()
}

/// Deletes tombstones of revisions up to `revision` (the slowest live replica's). Returns how many.
pub async fn prune(pool: &Pool, revision: i64) -> Result<u64> {
    let mut session = pool.begin().await?;
    // The head first, as `publish` does, so that the two never wait for each other.
    let query = pool
        .query("UPDATE route_head SET pruned = greatest(pruned, least($1, revision))")
        .bind(revision);
    query.run(&mut session).await?;
    let query = pool
        .query("DELETE FROM routes WHERE deleted AND revision <= $1")
        .bind(revision);
    let gone = query.run(&mut session).await?.rows_affected();
    session.done().await?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use routing::row::SourceSpec;

    fn row(n: u128, payload: usize, secret: usize) -> Row {
        Row {
            uid: Uuid::from_u128(n),
            namespace: "team".to_owned(),
            name: "source".to_owned(),
            generation: 1,
            spec: Spec::Source(SourceSpec {
                path: Some("p".repeat(payload)),
                max_body_bytes: 1,
                ..SourceSpec::default()
            }),
            secrets: vec![Secret::new(vec![b's'; secret])],
        }
    }

    fn lengths(rows: &[Row]) -> Vec<usize> {
        let chunks: Vec<_> = chunks(rows).collect();
        for chunk in &chunks {
            let bytes: usize = chunk.iter().map(Made::bytes).sum();
            assert!(bytes <= CHUNK_BYTES || chunk.len() == 1, "{bytes} bytes");
        }
        // Each row once, in order.
        assert!(
            chunks
                .iter()
                .flatten()
                .map(|made| made.row.uid)
                .eq(rows.iter().map(|row| row.uid))
        );
        chunks.iter().map(Vec::len).collect()
    }

    #[test]
    fn one_statement_writes_so_many_rows_and_so_many_bytes() {
        let small: Vec<Row> = (0..2_001).map(|n| row(n, 1, 1)).collect();
        assert_eq!(lengths(&small), [1_000, 1_000, 1]);
        let large: Vec<Row> = (0..70).map(|n| row(n, 250 << 10, 1)).collect();
        assert_eq!(lengths(&large), [32, 32, 6]);
        // Secrets weigh as payloads do.
        let secret: Vec<Row> = (0..5).map(|n| row(n, 1, 3 << 20)).collect();
        assert_eq!(lengths(&secret), [2, 2, 1]);
        assert_eq!(lengths(&[]), [0; 0]);
    }

    #[test]
    fn a_row_larger_than_a_chunk_goes_alone() {
        let rows = [row(1, 1, 1), row(2, 9 << 20, 1), row(3, 1, 1)];
        assert_eq!(lengths(&rows), [1, 1, 1]);
    }
}
