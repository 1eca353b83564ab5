-- What the owner of a destination remembers of it, and when an ordered delivery may be tried again.

-- A retry in a strict order keeps its due time, which is its place in the queue, and waits until then. Not in the index:
-- rows are read in their order, and what has to wait is passed over in memory.
ALTER TABLE queue ADD COLUMN retry_at timestamptz;

-- A row for each destination that ever failed, has a long rate limit or was reset; none for the others. Half-empty pages,
-- so that a row is rewritten in its own page.
CREATE TABLE destination_state (
    destination_id uuid PRIMARY KEY,
    shard smallint NOT NULL,
    circuit text NOT NULL DEFAULT 'closed' CONSTRAINT a_circuit_is_closed_or_open CHECK (circuit IN ('closed', 'open')),
    -- Once this has come, one delivery is tried.
    open_until timestamptz,
    opened_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    ramping boolean NOT NULL DEFAULT false,
    samples bigint[] NOT NULL DEFAULT '{}',
    rate_granted timestamptz,
    -- The operator writes what is wanted, the shard's owner what it has done.
    reset_wanted text,
    reset_done text,
    -- Of the lease under which it was written.
    epoch bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE INDEX destination_state_shard ON destination_state (shard);
CREATE INDEX destination_state_open ON destination_state (destination_id) WHERE circuit = 'open';
CREATE INDEX destination_state_reset ON destination_state (shard) WHERE reset_wanted IS DISTINCT FROM reset_done;
