-- A delivery may end without having been sent: its connection's expression didn't let the event pass, or its transform gave
-- nothing. Not validated: what is there fits the narrower rule too, and reading a month of history would hold up everybody.
-- The whole of the rule, as 0005 has it, which may come before this or after.
ALTER TABLE deliveries
    DROP CONSTRAINT IF EXISTS a_finished_delivery_is_delivered_or_a_dead_letter,
    DROP CONSTRAINT IF EXISTS a_delivery_is_delivered_filtered_a_dead_letter_or_pending_again;
ALTER TABLE deliveries ADD CONSTRAINT a_delivery_is_delivered_filtered_a_dead_letter_or_pending_again
    CHECK (state IN ('delivered', 'filtered', 'dead_letter', 'pending')) NOT VALID;
