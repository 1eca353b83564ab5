//! Filters: which events a connection takes.

use crate::event::EventView;
use serde::{Deserialize, Serialize};

/// The canonical form that a row keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {}

/// A filter compiled once, when the table is built.
#[derive(Debug, Clone, Default)]
pub struct Matcher {}

impl Matcher {
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        let _ = event;
        unimplemented!("written by the routing helper")
    }
}
