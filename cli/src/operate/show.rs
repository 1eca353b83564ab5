//! How it is printed. What strangers sent can't move the cursor: control characters are written out.

use crate::output;
use jiff::Timestamp;
use routing::ids::{self, Prefix};
use serde_json::{Value, json};
use std::fmt::Write;
use store::deliveries::Named;
use uuid::Uuid;

pub(super) fn delivery(id: Uuid) -> String {
    ids::format(Prefix::Delivery, id)
}

pub(super) fn job(id: Uuid) -> String {
    ids::format(Prefix::Job, id)
}

pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A resource by its name, or by its id when it has left the table.
pub(super) fn name(prefix: Prefix, named: &Named) -> String {
    match (&named.name, named.deleted) {
        (Some(name), false) => plain(name, 60),
        (Some(name), true) => format!("{} (deleted)", plain(name, 60)),
        (None, _) => id(prefix, named),
    }
}

pub(super) fn named_json(prefix: Prefix, named: &Named) -> Value {
    json!({"id": id(prefix, named), "name": named.name, "deleted": named.deleted})
}

/// A connection may be a topic's subscription.
fn id(prefix: Prefix, named: &Named) -> String {
    let prefix = match named.kind.as_deref() {
        Some("subscription") => Prefix::Subscription,
        _ => prefix,
    };
    ids::format(prefix, named.id)
}

/// The beginning of a text, on one line.
pub(super) fn plain(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == most {
            out.push('…');
            break;
        }
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Columns as wide as what is in them; the last one isn't filled up.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|n| rows.iter().map(|row| row[n].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

pub(super) fn print_json(value: &Value) -> anyhow::Result<()> {
    output::print(&format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_nothing_moves_the_cursor() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["A", "LONGER", "C"]), row(["äöü", "x", ""])]);
        assert_eq!(text, "A    LONGER  C\näöü  x\n");
        assert_eq!(plain("a\u{1b}[2Jb\n", 80), "a\\u{1b}[2Jb\\n");
        assert_eq!(plain("abcdef", 3), "abc…");
    }

    #[test]
    fn what_has_no_name_any_more_is_shown_by_its_id() {
        let mut named = Named {
            id: Uuid::from_u128(7),
            kind: None,
            name: None,
            deleted: true,
        };
        let shown = |named: &Named| name(Prefix::Connection, named);
        assert_eq!(shown(&named), "conn_00000000000000000000000000000007");
        named.kind = Some("subscription".to_owned());
        named.name = Some("orders".to_owned());
        assert_eq!(shown(&named), "orders (deleted)");
        let json = named_json(Prefix::Connection, &named);
        assert_eq!(json["id"], "sub_00000000000000000000000000000007");
    }
}
