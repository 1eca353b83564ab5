-- What topics need: the answers to publications that named themselves, and what is to be published later.

-- One row for each idempotency key that is remembered, by 128 bits of a hash over topic and key. `token` says whose answer
-- it is; an answer that has expired may stay for a while: the statement that meets it takes it over.
CREATE TABLE idempotency (
    key uuid PRIMARY KEY,
    token uuid NOT NULL,
    fingerprint uuid NOT NULL,
    answer bytea NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 10000
);
CREATE INDEX idempotency_expires_at ON idempotency (expires_at);

-- Events before their time. The id is the event's, of the millisecond at which it is due; the row goes in the transaction
-- that records the event. One index finds what is due, so what is due in ten years costs no look at it.
CREATE TABLE scheduled (
    topic_id uuid NOT NULL,
    id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    namespace text NOT NULL,
    scheduled_at timestamptz NOT NULL,
    headers bytea NOT NULL,
    body bytea NOT NULL,
    remote_addr inet NOT NULL,
    PRIMARY KEY (topic_id, id)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 2000
);
CREATE INDEX scheduled_due_at ON scheduled (due_at);
