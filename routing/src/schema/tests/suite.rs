//! The official test suite: every required test of all five drafts.

use super::*;
use serde::Deserialize;

const SUITE: &str = include_str!("../../../../tests/data/json-schema/suite.jsonl");

/// What we refuse on purpose, by what the refusal says, with the number of groups.
const REFUSED: &[(&str, usize)] = &[
    // Nothing is fetched.
    ("Retrieval is disabled", 64),
    // A draft of one's own: its document would have to be fetched.
    ("which is no draft that is known here", 4),
    // A dynamic reference whose target depends on who refers; it is judged as if each of them went to the root.
    ("never ends", 1),
];

#[derive(Deserialize)]
struct Group {
    draft: String,
    file: String,
    description: String,
    schema: Value,
    /// What it is about, whether it is valid, and the instance.
    tests: Vec<(String, bool, Value)>,
}

/// The suite's schemas of the older drafts don't name theirs.
fn named(group: &Group) -> Value {
    let uri = match group.draft.as_str() {
        "draft4" => "http://json-schema.org/draft-04/schema#",
        "draft6" => "http://json-schema.org/draft-06/schema#",
        "draft7" => "http://json-schema.org/draft-07/schema#",
        "draft2019-09" => "https://json-schema.org/draft/2019-09/schema",
        _ => "https://json-schema.org/draft/2020-12/schema",
    };
    let mut schema = group.schema.clone();
    if let Value::Object(fields) = &mut schema {
        fields.entry("$schema").or_insert_with(|| uri.into());
    }
    schema
}

#[test]
fn the_official_suite_is_judged_as_it_says() {
    let (mut tests, mut wrong, mut refused) = (0, Vec::new(), Vec::new());
    for line in SUITE.lines() {
        let group: Group = serde_json::from_str(line).expect("a group of tests");
        let name = format!("{}/{}: {}", group.draft, group.file, group.description);
        let schema = match Schema::new(&named(&group)) {
            Ok(schema) => schema,
            Err(why) => {
                refused.push((why, name));
                continue;
            }
        };
        for (about, valid, instance) in &group.tests {
            tests += 1;
            if schema.misfits(Some(instance)).is_empty() != *valid {
                wrong.push(format!("{name}: {about}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tests}: {wrong:#?}", wrong.len());
    for (words, groups) in REFUSED {
        let before = refused.len();
        refused.retain(|(why, _)| !why.contains(words));
        assert_eq!(before - refused.len(), *groups, "{words}");
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(tests, 4688, "none is left out");
}
