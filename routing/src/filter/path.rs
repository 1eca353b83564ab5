//! Where a rule looks: `body.order.items[0].price`, `headers.x-github-event`, `query.page`, `method` …

use http::HeaderName;
use serde::{Deserialize, Serialize};

/// Bounds that keep a row small and the walk's recursion flat; the resource type has the same or tighter ones.
const MAX_LENGTH: usize = 512;
const MAX_SEGMENTS: usize = 32;

/// What every message about a path ends with.
const ROOTS: &str = "a path is body.…, headers.…, query.…, method, path, content_type or source_ip";

/// A path in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    Method,
    Path,
    /// The media type alone, as `application/json`; `headers.content-type` has the parameters too.
    ContentType,
    SourceIp,
    /// Lower case.
    Header(String),
    Query(String),
    /// From the root of a JSON body, or the fields of a form; empty: the body itself.
    Body(Vec<Segment>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    Key(String),
    Index(u32),
    /// `[*]`: each element of an array.
    Each,
}

impl Path {
    /// Whether following it takes the body.
    pub fn is_in_the_body(&self) -> bool {
        matches!(self, Path::Body(_))
    }

    /// Reads a path; the error is a sentence that says what to write.
    pub fn parse(text: &str) -> Result<Path, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("the path is longer than {MAX_LENGTH} bytes"));
        }
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let (root, rest) = text.split_at(end);
        match root {
            "body" | "payload" => segments(text, rest).map(Path::Body),
            "headers" => header(text, rest),
            "query" => query(text, rest),
            "method" => alone(text, rest, Path::Method),
            "path" => alone(text, rest, Path::Path),
            "content_type" => alone(text, rest, Path::ContentType),
            "source_ip" => alone(text, rest, Path::SourceIp),
            "" => Err(format!(
                "the path is empty or begins with a separator; {ROOTS}"
            )),
            "header" => Err(format!("write `headers{rest}` (with an s)")),
            _ => Err(format!(
                "`{text}` begins with none of the parts of a request; for a field of the JSON body write `body.{text}`; {ROOTS}"
            )),
        }
    }

    /// What matching by this path costs, in order: a field, a scan of a text, parsing the body.
    pub(super) fn cost(&self) -> u8 {
        match self {
            Path::Method | Path::Path | Path::ContentType | Path::SourceIp | Path::Header(_) => 0,
            Path::Query(_) => 1,
            Path::Body(_) => 2,
        }
    }
}

fn alone(text: &str, rest: &str, path: Path) -> Result<Path, String> {
    match rest {
        "" => Ok(path),
        _ => Err(format!(
            "`{text}`: nothing can follow `{}`",
            &text[..text.len() - rest.len()]
        )),
    }
}

/// `.name` (all that follows is the name) or `["name"]`.
fn name<'t>(text: &str, rest: &'t str, example: &str) -> Result<&'t str, String> {
    let name = match rest.strip_prefix('.') {
        Some(name) => Some(name),
        None => quoted(rest)
            .filter(|(_, after)| after.is_empty())
            .map(|(name, _)| name),
    };
    match name {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(format!("`{text}` names nothing; write `{example}`")),
    }
}

fn header(text: &str, rest: &str) -> Result<Path, String> {
    let name = name(text, rest, "headers.x-github-event")?;
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Ok(Path::Header(name.as_str().to_owned())),
        Err(_) => Err(format!(
            "`{name}` can't be the name of a header; write `headers.x-github-event`"
        )),
    }
}

fn query(text: &str, rest: &str) -> Result<Path, String> {
    name(text, rest, "query.page").map(|name| Path::Query(name.to_owned()))
}

/// `["name"]…` or `['name']…`: the name, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('[')?;
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    inner[1..].split_once(match quote {
        '"' => "\"]",
        _ => "']",
    })
}

/// What follows `body`: `.key`, `["key"]`, `[0]`, `[*]`, any number of times.
fn segments(text: &str, mut rest: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    while !rest.is_empty() {
        let (segment, after) = segment(text, rest)?;
        segments.push(segment);
        rest = after;
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("the path is more than {MAX_SEGMENTS} levels deep"));
        }
    }
    Ok(segments)
}

fn segment<'t>(text: &str, rest: &'t str) -> Result<(Segment, &'t str), String> {
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(['.', '[', ']']).unwrap_or(after.len());
        return match &after[..end] {
            "" => Err(format!("`{text}` has an empty name; write `body.order.id`")),
            "*" => Err(format!(
                "write `[*]` for each element of a list, as `body.items[*].id`, in `{text}`"
            )),
            key => Ok((Segment::Key(key.to_owned()), &after[end..])),
        };
    }
    if let Some((key, after)) = quoted(rest) {
        return Ok((Segment::Key(key.to_owned()), after));
    }
    let bracket = rest
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'));
    let segment = bracket.and_then(|(inside, after)| match inside {
        "*" => Some((Segment::Each, after)),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .map(|place| (Segment::Index(place), after)),
        _ => None,
    });
    segment.ok_or_else(|| {
        format!("`{text}` is wrong at `{rest}`; write `[0]`, `[*]` or `[\"a name\"]`, and a dot before a plain name")
    })
}
