-- A topic whose schema only warns takes an event that doesn't fit; until it is due, its row says so.
ALTER TABLE scheduled ADD COLUMN schema_invalid boolean NOT NULL DEFAULT false;
