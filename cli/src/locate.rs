//! Where in a YAML file a field was written.
//!
//! What is wrong with a manifest is found after it became a value, and a value has no lines. So the text is read a
//! second time, by a parser that keeps positions, and every field path (`spec.filter.all[0].op`) gets the line of its
//! key. Nothing here judges: a text that this parser refuses has no places, and its mistakes point at line 1.

use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::BTreeMap;

/// The lines of one document.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Places {
    /// Of the first key, from 1.
    pub first_line: usize,
    lines: BTreeMap<String, usize>,
    /// Keys that a mapping has twice, with the line of the second. YAML forbids them, and our reader takes the last one
    /// without a word, so the author would wonder where the first went.
    pub duplicates: Vec<(String, usize)>,
    /// Lines of words without quotes that are text here and a boolean to kubectl.
    pub booleans: Vec<usize>,
}

/// YAML 1.1 has these beside true and false, and kubectl still reads it; 1.2 has not.
const BOOLEANS: [&str; 16] = [
    "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off",
    "OFF",
];

impl Places {
    /// The line of a field, or of the nearest thing around it that was written: a field that is missing points at the
    /// object that lacks it.
    pub fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.first_line,
            }
        }
    }
}

/// What a node of the document is inside of, while it is being read.
enum Frame {
    Mapping {
        path: String,
        key: Option<String>,
        seen: BTreeMap<String, usize>,
    },
    Sequence {
        path: String,
        next: usize,
    },
}

/// The places of every document in `text`, in order.
pub fn documents(text: &str) -> Vec<Places> {
    let mut found = Vec::new();
    let mut document = Places::default();
    let mut frames: Vec<Frame> = Vec::new();
    for next in Parser::new_from_str(text) {
        let Ok((event, span)) = next else { break };
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => {
                document = Places {
                    first_line: line,
                    ..Places::default()
                };
                frames.clear();
            }
            Event::DocumentEnd => found.push(std::mem::take(&mut document)),
            Event::Scalar(text, style, ..) => {
                if style == ScalarStyle::Plain && BOOLEANS.contains(&&*text) {
                    document.booleans.push(line);
                }
                if let Some(Frame::Mapping {
                    path,
                    key: key @ None,
                    seen,
                }) = frames.last_mut()
                {
                    let field = join(path, &text);
                    if document.lines.is_empty() {
                        document.first_line = line;
                    }
                    if seen.insert(text.to_string(), line).is_some() {
                        document.duplicates.push((field.clone(), line));
                    }
                    document.lines.entry(field).or_insert(line);
                    *key = Some(text.into_owned());
                } else {
                    begin(&mut frames, &mut document, line);
                }
            }
            Event::Alias(_) => {
                begin(&mut frames, &mut document, line);
            }
            Event::MappingStart(..) => {
                let path = begin(&mut frames, &mut document, line);
                frames.push(Frame::Mapping {
                    path,
                    key: None,
                    seen: BTreeMap::new(),
                });
            }
            Event::SequenceStart(..) => {
                let path = begin(&mut frames, &mut document, line);
                frames.push(Frame::Sequence { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                frames.pop();
            }
            _ => {}
        }
    }
    found
}

/// Notes a value that begins at `line` and answers its path. An item of a list has a line of its own; a mapping's value
/// is where its key is.
fn begin(frames: &mut [Frame], document: &mut Places, line: usize) -> String {
    match frames.last_mut() {
        None => String::new(),
        Some(Frame::Mapping { path, key, .. }) => match key.take() {
            Some(key) => join(path, &key),
            None => path.clone(),
        },
        Some(Frame::Sequence { path, next }) => {
            let item = format!("{path}[{next}]");
            *next += 1;
            document.lines.insert(item.clone(), line);
            item
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
apiVersion: hookstream.io/v1alpha1
kind: Connection
metadata: {name: a}
spec:
  source: {name: s}
  filter:
    all:
    - {path: body.type, op: eq, value: x}
    - path: body.kind
      op: gte
---

apiVersion: v1
kind: Secret
";

    #[test]
    fn a_field_is_found_on_its_line_in_block_and_flow_style() {
        let documents = documents(TEXT);
        assert_eq!(documents.len(), 2);
        for (path, line) in [
            ("apiVersion", 2),
            ("metadata.name", 4),
            ("spec", 5),
            ("spec.filter.all", 8),
            ("spec.filter.all[0].op", 9),
            ("spec.filter.all[1]", 10),
            ("spec.filter.all[1].op", 11),
        ] {
            assert_eq!(documents[0].line(path), line, "{path}");
        }
        assert_eq!(documents[1].first_line, 14);
        assert_eq!(documents[1].line("kind"), 15);
    }

    #[test]
    fn a_field_that_was_not_written_points_at_what_lacks_it() {
        let documents = documents(TEXT);
        assert_eq!(documents[0].line("spec.filter.all[1].value"), 10);
        assert_eq!(documents[0].line("spec.destination.name"), 5);
        assert_eq!(documents[0].line("status"), 2);
        assert_eq!(documents[0].line(""), 2);
    }

    #[test]
    fn a_key_written_twice_is_noticed() {
        let documents = documents("spec:\n  a: 1\n  b: {a: 1}\n  a: 2\n");
        assert_eq!(documents[0].duplicates, [("spec.a".to_owned(), 4)]);
    }

    #[test]
    fn words_that_kubectl_takes_for_booleans_are_noticed_unless_quoted() {
        let documents =
            documents("n: 1\nspec:\n  - {value: on, other: 'off'}\n  - \"yes\"\n  - nothing\n");
        assert_eq!(documents[0].booleans, [1, 3]);
    }

    #[test]
    fn a_text_that_does_not_parse_has_the_documents_before_the_mistake() {
        assert_eq!(documents("a: 1\n---\nb: [1\nc: }").len(), 1);
        assert!(documents("").is_empty());
    }
}
