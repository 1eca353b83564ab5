//! The regular expression of a rule.
//!
//! Matching takes time that grows with the text and the pattern, never exponentially: the `regex` crate has neither
//! back-references nor look-around. Still, a pattern of a few bytes can expand into thousands of states that each byte of
//! a text walks through, while a sender waits; so patterns are bounded by what they expand to, and by the text that they
//! look at.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, sync::Arc};

/// Characters and classes when repetitions are written out, as `[0-9]{8}` is eight. With [`MOST_TEXT_BYTES`] the slowest
/// pattern takes a tenth of a second; patterns as people write them take microseconds.
const MOST_POSITIONS: u64 = 512;

/// Of the compiled program, and of the states that are remembered while it runs, each. A `\w` takes 49 KiB, since it
/// knows the letters of all languages; `[A-Za-z0-9_]` takes a hundredth of that.
const MOST_PROGRAM_BYTES: usize = 256 << 10;

/// Levels of groups in groups: the parser and the walk below go as deep.
const MOST_NESTED: u32 = 32;

/// Of one event's values, that a rule's pattern looks at. Where the values are longer in sum, those from there on don't
/// match.
pub(super) const MOST_TEXT_BYTES: usize = 8 << 10;

/// A pattern that is known to compile, with its program. A row holds the text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    program: Arc<Regex>,
}

impl Pattern {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The error says where it is wrong and what to write.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let syntax = regex_syntax::ParserBuilder::new()
            .nest_limit(MOST_NESTED)
            .build()
            .parse(text)
            .map_err(|error| wrong(text, &error))?;
        let positions = positions(&syntax);
        if positions > MOST_POSITIONS {
            return Err(format!(
                "the pattern `{}` is too large: with its repetitions written out it has {positions} characters, at most \
                 {MOST_POSITIONS} are allowed; repeat less, or write `+` or `*` in place of a number",
                shown(text)
            ));
        }
        let program = RegexBuilder::new(text)
            .nest_limit(MOST_NESTED)
            .size_limit(MOST_PROGRAM_BYTES)
            .dfa_size_limit(MOST_PROGRAM_BYTES)
            .build()
            .map_err(|_| {
                format!(
                    "the pattern `{}` is too large when compiled; `\\w`, `\\d` and `\\s` stand for the characters of all \
                     languages: write `[A-Za-z0-9_]`, `[0-9]` and `[ \\t]`",
                    shown(text)
                )
            })?;
        Ok(Pattern {
            text: text.to_owned(),
            program: Arc::new(program),
        })
    }

    /// Whether it is found anywhere in the text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.program.is_match(text)
    }
}

/// The place, counted in characters from 1, and what is there.
fn wrong(text: &str, error: &regex_syntax::Error) -> String {
    let (at, kind) = match error {
        regex_syntax::Error::Parse(error) => (error.span().start.offset, error.kind().to_string()),
        regex_syntax::Error::Translate(error) => {
            (error.span().start.offset, error.kind().to_string())
        }
        other => (0, other.to_string()),
    };
    let place = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
    format!(
        "the pattern `{}` is wrong at character {place}: {kind}; the syntax is that of https://docs.rs/regex, without \
         look-around and back-references, and a `\\` in double quotes of YAML is written twice",
        shown(text)
    )
}

/// Enough of a pattern to know it by.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// As deep as groups nest, which the parser has bounded.
fn positions(syntax: &Hir) -> u64 {
    let sum = |parts: &[Hir]| {
        let each = parts.iter().map(positions);
        each.fold(0, u64::saturating_add)
    };
    match syntax.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            positions(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(group) => positions(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text
    }
}

/// A row holds what the operator compiled. Should this gateway's limits be tighter, the row is refused and the one before
/// it kept, as with anything else that can't be read.
impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        Pattern::parse(&text)
    }
}

#[cfg(test)]
mod tests;
