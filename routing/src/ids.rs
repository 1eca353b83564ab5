//! Public identifiers: a prefix and 32 hex digits.
//!
//! A resource's id is its Kubernetes UID without dashes, so it needs no table of its own. What Postgres keeps is
//! numbered by UUIDv7 (RFC 9562), whose first 48 bits are the millisecond: the day partition of a row follows from its id.
//!
//! An attempt has no number of its own: it is its delivery's id with the attempt's number in the last 16 bits, which a
//! delivery's id leaves zero. So the attempts of a delivery are one range of one index.

use uuid::Uuid;

/// The prefixes of the documents, and for what they have no word ours: a delivery and a job. Other ids stay inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    Source,
    Destination,
    Connection,
    Topic,
    Subscription,
    Event,
    Delivery,
    Attempt,
    Job,
    Request,
}

impl Prefix {
    pub const fn as_str(self) -> &'static str {
        match self {
            Prefix::Source => "src_",
            Prefix::Destination => "dst_",
            Prefix::Connection => "conn_",
            Prefix::Topic => "top_",
            Prefix::Subscription => "sub_",
            Prefix::Event => "evt_",
            Prefix::Delivery => "dlv_",
            Prefix::Attempt => "da_",
            Prefix::Job => "job_",
            Prefix::Request => "req_",
        }
    }
}

/// `evt_0192…`: the prefix and the 32 hex digits, allocated once.
pub fn format(prefix: Prefix, id: Uuid) -> String {
    let mut text = String::with_capacity(prefix.as_str().len() + 32);
    text.push_str(prefix.as_str());
    text.push_str(id.simple().encode_lower(&mut Uuid::encode_buffer()));
    text
}

/// The inverse of [`format()`]; `None` for another prefix, another length or anything but lower-case hex.
pub fn parse(prefix: Prefix, text: &str) -> Option<Uuid> {
    let hex = text.strip_prefix(prefix.as_str())?;
    let plain = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| Uuid::try_parse(hex).ok()).flatten()
}

const ATTEMPT_BITS: u128 = 0xffff;

/// Turns a fresh UUIDv7 into a delivery's id: the last 16 bits make room for the attempts' numbers.
pub fn delivery(fresh: Uuid) -> Uuid {
    Uuid::from_u128(fresh.as_u128() & !ATTEMPT_BITS)
}

/// The id of the `number`-th attempt (from 1) of a delivery.
pub fn attempt(delivery: Uuid, number: u16) -> Uuid {
    Uuid::from_u128((delivery.as_u128() & !ATTEMPT_BITS) | u128::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_being_written_and_read() {
        let id = Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3344_5566);
        let text = format(Prefix::Event, id);
        assert_eq!(text, "evt_0192f3a4b5c67d8e9f00112233445566");
        assert_eq!(parse(Prefix::Event, &text), Some(id));
    }

    #[test]
    fn an_id_of_another_kind_or_shape_is_none() {
        for text in [
            "src_0192f3a4b5c67d8e9f00112233445566",
            "evt_0192F3A4B5C67D8E9F00112233445566",
            "evt_0192f3a4-b5c6-7d8e-9f00-112233445566",
            "evt_0192f3a4b5c67d8e9f0011223344556",
            "evt_",
            "",
        ] {
            assert_eq!(parse(Prefix::Event, text), None, "{text}");
        }
    }

    #[test]
    fn attempts_are_a_range_behind_their_delivery() {
        let first = delivery(Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3344_5566));
        let next = delivery(Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3345_5566));
        assert!(first < attempt(first, 1) && attempt(first, u16::MAX) < next);
        assert_eq!(delivery(attempt(first, 7)), first);
    }
}
