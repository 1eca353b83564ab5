-- Finished deliveries that are set going again, and the jobs that do it to many.

-- 'pending': set going again, so its queue row is the delivery until it's finished once more. Not checked against the
-- history that is there, which would be read whole and locked meanwhile: it fits the narrower rule. The same rule as in
-- 0007, by whichever of its names it goes: a database may have got that one first.
ALTER TABLE deliveries
    DROP CONSTRAINT IF EXISTS a_finished_delivery_is_delivered_or_a_dead_letter,
    DROP CONSTRAINT IF EXISTS a_finished_delivery_is_delivered_filtered_or_a_dead_letter;
ALTER TABLE deliveries ADD CONSTRAINT a_delivery_is_delivered_filtered_a_dead_letter_or_pending_again
    CHECK (state IN ('delivered', 'filtered', 'dead_letter', 'pending')) NOT VALID;

-- Rounds: how often it was set going again. What a round wrote is never taken for another's, however late it comes.
ALTER TABLE deliveries
    ADD COLUMN round integer NOT NULL DEFAULT 0,
    -- The last job that did so.
    ADD COLUMN job_id uuid,
    -- How each earlier round ended, and who set it going again: the newest hundred.
    ADD COLUMN retries jsonb;

-- Dead letters are few among deliveries, and only they are in these.
CREATE INDEX deliveries_dead_letters ON deliveries (namespace, finished_at, id) WHERE state = 'dead_letter';
CREATE INDEX deliveries_dead_letters_of_destination ON deliveries (destination_id, finished_at, id) WHERE state = 'dead_letter';

-- Null: as the retry policy has it, the first attempt or one that follows another by itself.
ALTER TABLE attempts ADD COLUMN trigger text, ADD COLUMN job_id uuid;

-- recorded_at is when this round began, for an event's first deliveries when it was received.
ALTER TABLE queue
    ADD COLUMN round integer NOT NULL DEFAULT 0,
    -- Made before this round: they don't count against the retry policy.
    ADD COLUMN attempts_before integer NOT NULL DEFAULT 0,
    ADD COLUMN job_id uuid;

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    kind text NOT NULL CONSTRAINT a_job_retries CHECK (kind IN ('retry')),
    namespace text NOT NULL,
    -- As it was asked for.
    asked jsonb NOT NULL,
    state text NOT NULL CONSTRAINT a_job_runs_or_has_ended_in_one_of_three_ways
        CHECK (state IN ('running', 'stopped', 'done', 'failed')),
    rate_per_second integer NOT NULL CONSTRAINT a_jobs_rate_is_1_to_1000 CHECK (rate_per_second BETWEEN 1 AND 1000),
    created_by text NOT NULL,
    idempotency_key text,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    error text,
    -- Null: more than are counted beforehand, or can't be counted.
    total bigint,
    retried bigint NOT NULL DEFAULT 0,
    -- Reason to number.
    refused jsonb NOT NULL DEFAULT '{}',
    -- Everything up to here is done: written together with what was done.
    cursor_at timestamptz NOT NULL,
    cursor_id uuid NOT NULL,
    -- What the rate has allowed up to this time is used up.
    used_until timestamptz NOT NULL,
    CONSTRAINT a_job_that_does_not_run_has_ended CHECK ((state = 'running') = (ended_at IS NULL)),
    CONSTRAINT a_failed_job_says_why CHECK ((state = 'failed') = (error IS NOT NULL))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX jobs_idempotency_key ON jobs (namespace, kind, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_running ON jobs (namespace) WHERE state = 'running';
CREATE INDEX jobs_namespace ON jobs (namespace, id);
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
