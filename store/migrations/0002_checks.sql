-- What a source's checks found out about an event, and the keys by which a second copy is recognised.

ALTER TABLE events
    ADD COLUMN verification_status text
        CONSTRAINT an_event_is_verified_or_schema_invalid CHECK (verification_status IN ('verified', 'schema_invalid')),
    ADD COLUMN duplicate_of uuid;

-- One row for each key that is remembered; its key is 128 bits of a hash over source and value. A key that has expired may
-- stay for a while: the statement that meets it takes it over. The second index is written at its end only (windows are
-- few and time moves on), and lets the sweep find what has expired without looking at the rest.
CREATE TABLE dedup (
    key uuid PRIMARY KEY,
    event_id uuid NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0.2
);
CREATE INDEX dedup_expires_at ON dedup (expires_at);
