-- The spine: history by day, the queue, leases, replicas, the routing table.
--
-- History (events, deliveries, attempts) is partitioned by range on UUIDv7 keys, whose first 48 bits are the millisecond:
-- a look-up by id touches one partition, and retention drops whole days. Partitions are made by store/src/partitions.rs;
-- there is no default one, since a row in it would block making the right one.

CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT there_is_one_installation CHECK (one),
    shards smallint NOT NULL CONSTRAINT shards_are_between_1_and_4096 CHECK (shards BETWEEN 1 AND 4096),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE events (
    id uuid NOT NULL,
    namespace text NOT NULL,
    source_id uuid NOT NULL,
    revision bigint NOT NULL,
    received_at timestamptz NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    query text NOT NULL,
    headers bytea NOT NULL,
    body bytea NOT NULL,
    remote_addr inet NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

-- Written when a delivery is finished; until then its queue row is the delivery.
CREATE TABLE deliveries (
    id uuid NOT NULL,
    event_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    destination_id uuid NOT NULL,
    namespace text NOT NULL,
    state text NOT NULL CONSTRAINT a_finished_delivery_is_delivered_or_a_dead_letter CHECK (state IN ('delivered', 'dead_letter')),
    reason text,
    attempts integer NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    CONSTRAINT a_dead_letter_has_a_reason CHECK ((state = 'dead_letter') = (reason IS NOT NULL)),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_event_id ON deliveries (event_id);

CREATE TABLE attempts (
    delivery_id uuid NOT NULL,
    number integer NOT NULL CONSTRAINT attempts_are_numbered_from_1 CHECK (number >= 1),
    event_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    outcome text NOT NULL,
    status smallint,
    error text,
    dns_us integer,
    connect_us integer,
    tls_us integer,
    first_byte_us integer,
    total_us integer,
    response_headers bytea,
    response_body bytea,
    replica text NOT NULL,
    PRIMARY KEY (delivery_id, number)
) PARTITION BY RANGE (delivery_id);

-- At 16 KiB lz4 costs a fifth of pglz. A server built without it keeps its default.
DO $$
BEGIN
    ALTER TABLE events ALTER COLUMN headers SET COMPRESSION lz4, ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE attempts ALTER COLUMN response_headers SET COMPRESSION lz4, ALTER COLUMN response_body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    RAISE NOTICE 'this server has no lz4';
END $$;

-- Small and hot: a row comes with its event and goes with its outcome, so dead rows are cleared early and without pauses.
-- The key is the only index, and it is the order in which the owner of a shard reads.
CREATE TABLE queue (
    shard smallint NOT NULL,
    destination_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    namespace text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (shard, destination_id, due_at, delivery_id)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.2,
    autovacuum_analyze_threshold = 5000
);

-- Half-empty pages, so that renewing rewrites a row in its own page and touches no index.
CREATE TABLE lease (
    name text PRIMARY KEY,
    holder text,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE replica (
    id text PRIMARY KEY,
    address text NOT NULL,
    roles text[] NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    route_epoch bigint NOT NULL,
    applied_revision bigint NOT NULL,
    unreadable_rows integer NOT NULL,
    shards integer NOT NULL,
    heartbeat_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE routes (
    kind text NOT NULL,
    uid uuid NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    payload bytea NOT NULL,
    sealed bytea NOT NULL,
    digest bytea NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (kind, uid)
);
CREATE INDEX routes_revision ON routes (revision);

CREATE TABLE route_head (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT there_is_one_head CHECK (one),
    epoch bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    -- Tombstones up to this revision are gone: a reader further behind reads the whole table.
    pruned bigint NOT NULL DEFAULT 0,
    leader text
);
INSERT INTO route_head DEFAULT VALUES;
