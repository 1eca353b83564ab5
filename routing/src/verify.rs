//! Is this request from who it says it is?

use crate::event::EventView;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a row keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {}

/// A verification with its secrets, ready to judge.
#[derive(Debug)]
pub struct Verifier {}

/// Why a request was refused; `as_str` is the metric's `reason`, `message` what the sender reads (it helps nobody forge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    SignatureMissing,
    SignatureMalformed,
    SignatureMismatch,
    TimestampMissing,
    TimestampOutsideTolerance,
}

impl Verifier {
    pub fn verify(&self, event: &EventView<'_>, now: Timestamp) -> Result<(), Refused> {
        let _ = (event, now);
        unimplemented!("written by the routing helper")
    }
}
