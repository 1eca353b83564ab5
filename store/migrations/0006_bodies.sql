-- Large bodies are in an object store, under this installation's id, before the row that refers to them is here.

-- Two installations in one bucket must not take each other's objects for orphans.
ALTER TABLE installation ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();

-- The size of a body that is an object; `body` is empty then.
ALTER TABLE events ADD COLUMN object_bytes bigint
    CONSTRAINT a_body_is_here_or_an_object CHECK (object_bytes IS NULL OR (object_bytes >= 0 AND octet_length(body) = 0));
