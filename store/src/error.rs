//! What went wrong with the database, by what the caller can do about it.

use jiff::Timestamp;
use std::error::Error as StdError;

/// The result of every call of this crate that has no error type of its own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not connected, shutting down, out of connections, deadlock, time-out: the same call may succeed later, and every
    /// call of this crate may be made again although the first one may have been carried out.
    #[error("Postgres is not available")]
    Unavailable(#[source] Source),

    /// The lease or epoch that the write names is no longer its writer's. Nothing was written.
    #[error("another holder has taken over; nothing was written")]
    Fenced,

    /// Rows of that day have nowhere to go: call [`crate::partitions::ensure`] and make the same call once more.
    #[error("there is no partition for this row's day yet")]
    MissingPartition(#[source] Source),

    /// A newer version of hookstream has changed the database.
    #[error(
        "the database has migration {found}, made by a newer hookstream; this version knows up to {known}: \
         run the newer version, or restore a backup made before the upgrade"
    )]
    Newer { found: i32, known: i32 },

    /// The tables are not those that this version writes (never migrated, or changed by hand).
    #[error(
        "the database's tables are not this version's: restart the operator or a gateway, which bring them up to date, or restore what is named here"
    )]
    Schema(#[source] Source),

    /// The rows themselves were refused: the same call will fail again.
    #[error("the database refused the data")]
    Data(#[source] Source),

    /// A replica's clock, or the database's, is wrong by more than a day. Nothing was done.
    #[error(
        "this machine's clock says {now} and the database's {database}: set the one that is wrong"
    )]
    Clock { now: Timestamp, database: Timestamp },

    /// Text of senders and destinations would not fit into this database.
    #[error(
        "the database's encoding is {found}, which cannot hold all text: \
         create it with ENCODING 'UTF8' (TEMPLATE template0)"
    )]
    Encoding { found: String },

    /// The URL or an option in it cannot be used.
    #[error("the database URL cannot be used: {0}")]
    Url(String),

    #[error("the database call failed")]
    Other(#[source] Source),
}

/// The driver's error, or what we found wrong in what the driver read.
pub type Source = Box<dyn StdError + Send + Sync>;

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }

    /// A row that was to be inserted is there already.
    pub(crate) fn is_unique_violation(&self) -> bool {
        let Error::Data(source) = self else {
            return false;
        };
        source
            .downcast_ref::<sqlx::Error>()
            .and_then(sqlx::Error::as_database_error)
            .is_some_and(|error| error.is_unique_violation())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = &error else {
            return match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Error::Unavailable(Box::new(error)),
                sqlx::Error::Configuration(_) => Error::Url(error.to_string()),
                sqlx::Error::ColumnNotFound(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
                    Error::Schema(Box::new(error))
                }
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                    Error::Data(Box::new(error))
                }
                _ => Error::Other(Box::new(error)),
            };
        };
        let code = database.code().unwrap_or_default().into_owned();
        // Postgres reports a missing partition as a check violation without a constraint's name.
        let partition = code == "23514" && database.constraint().is_none();
        let source: Source = Box::new(error);
        match code.as_str() {
            _ if partition => Error::MissingPartition(source),
            // Undefined table, column, function, or a type that changed.
            "42P01" | "42703" | "42883" | "42704" | "42804" => Error::Schema(source),
            // Query cancelled by a time-out, read-only standby, object in use.
            "57014" | "25006" | "55P03" | "55006" => Error::Unavailable(source),
            _ => match code.get(..2) {
                // Connection, rollback (serialization, deadlock), resources, operator intervention, system error.
                Some("08" | "40" | "53" | "57" | "58") => Error::Unavailable(source),
                // Data exceptions and constraints.
                Some("22" | "23") => Error::Data(source),
                _ => Error::Other(source),
            },
        }
    }
}
