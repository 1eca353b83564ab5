//! What was measured, beside what it must reach.

use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    note: String,
}

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn reached(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(goal) => value >= goal,
            Goal::AtMost(goal) => value <= goal,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtLeast(goal) => write!(f, "≥ {goal}"),
            Goal::AtMost(goal) => write!(f, "≤ {goal}"),
        }
    }
}

impl Report {
    pub(crate) fn add(
        &mut self,
        figure: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
        note: impl Into<String>,
    ) {
        let row = Row {
            figure: figure.into(),
            value,
            unit,
            goal: Some(goal),
            note: note.into(),
        };
        eprintln!(
            "{}: {:.3} {} ({goal}) {}",
            row.figure, row.value, row.unit, row.note
        );
        self.rows.push(row);
    }

    pub(crate) fn note(&mut self, figure: impl Into<String>, value: f64, note: impl Into<String>) {
        let row = Row {
            figure: figure.into(),
            value,
            unit: "",
            goal: None,
            note: note.into(),
        };
        eprintln!("{}: {:.1} {}", row.figure, row.value, row.note);
        self.rows.push(row);
    }

    pub(crate) fn all_reached(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.goal.is_none_or(|goal| goal.reached(row.value)))
    }

    pub(crate) fn print(&self) {
        println!("| figure | measured | must | | note |\n|---|---|---|---|---|");
        for row in &self.rows {
            let (goal, mark) = row.goal.map_or((String::new(), ""), |goal| {
                (
                    goal.to_string(),
                    if goal.reached(row.value) { "yes" } else { "NO" },
                )
            });
            println!(
                "| {} | {:.2} {} | {goal} | {mark} | {} |",
                row.figure, row.value, row.unit, row.note
            );
        }
    }

    pub(crate) fn write(&self, path: &str) -> anyhow::Result<()> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({"figure": row.figure, "value": row.value, "unit": row.unit, "goal": row.goal.map(|g| g.to_string()), "reached": row.goal.map(|g| g.reached(row.value)), "note": row.note}))
            .collect();
        std::fs::write(
            path,
            serde_json::to_vec_pretty(&json!({ "figures": rows }))?,
        )?;
        Ok(())
    }
}
