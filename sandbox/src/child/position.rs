//! Where in an expression a mistake is.
//!
//! The parser says what it stumbled over and not where. It reads from left to right and stops at the first mistake, so the
//! shortest beginning of the text that gives the same message ends where the mistake is.

use jsonata_core::parser::{self, ParserError};

/// The parser's message in the user's words, with a line and a column.
pub(super) fn told(text: &str, error: &ParserError) -> String {
    let message = error.to_string();
    let (line, column) = line_and_column(text, find(text, &message));
    format!("{} (line {line}, column {column})", plain(&message))
}

/// The byte at which the word, number or sign begins that the parser doesn't take.
fn find(text: &str, message: &str) -> usize {
    if at_the_end(message) {
        return text.len();
    }
    let ends: Vec<usize> = text
        .char_indices()
        .map(|(at, character)| at + character.len_utf8())
        .collect();
    let same =
        |end: usize| parser::parse(&text[..end]).is_err_and(|error| error.to_string() == *message);
    let first = ends.partition_point(|end| !same(*end));
    let Some(&end) = ends.get(first) else {
        return text.len();
    };
    let word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '$');
    let before = text[..end].char_indices().next_back();
    match before {
        Some((_, last)) if word(last) => text[..end]
            .rfind(|character| !word(character))
            .map_or(0, |at| {
                at + text[at..].chars().next().map_or(1, char::len_utf8)
            }),
        Some((at, _)) => at,
        None => 0,
    }
}

/// Whether more was expected than there is.
fn at_the_end(message: &str) -> bool {
    ["S0207", "S0203", "S0101", "S0105", "Unclosed"]
        .iter()
        .any(|code| message.starts_with(code))
}

/// From 1, in characters.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}

/// The parser calls signs by the names of its own types.
fn plain(message: &str) -> String {
    const NAMES: [(&str, &str); 14] = [
        ("LeftParen", "`(`"),
        ("RightParen", "`)`"),
        ("LeftBracket", "`[`"),
        ("RightBracket", "`]`"),
        ("LeftBrace", "`{`"),
        ("RightBrace", "`}`"),
        ("Comma", "`,`"),
        ("Semicolon", "`;`"),
        ("ColonEqual", "`:=`"),
        ("Colon", "`:`"),
        ("QuestionColon", "`?:`"),
        ("GreaterThan", "`>`"),
        ("LessThan", "`<`"),
        ("Eof", "the end"),
    ];
    let mut plain = message.to_owned();
    for (name, sign) in NAMES {
        let mut rest = String::with_capacity(plain.len());
        let mut last = 0;
        for (at, _) in plain.match_indices(name) {
            let ends_word =
                |text: &str| text.chars().next_back().is_some_and(char::is_alphanumeric);
            let begins_word = |text: &str| text.chars().next().is_some_and(char::is_alphanumeric);
            if at >= last && !ends_word(&plain[..at]) && !begins_word(&plain[at + name.len()..]) {
                rest.push_str(&plain[last..at]);
                rest.push_str(sign);
                last = at + name.len();
            }
        }
        rest.push_str(&plain[last..]);
        plain = rest;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> String {
        told(text, &parser::parse(text).expect_err(text))
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_column() {
        for (text, at) in [
            ("body.items[", "(line 1, column 12)"),
            ("{ \"a\": body.type", "(line 1, column 17)"),
            ("(1; 2))", "(line 1, column 7)"),
            ("{\n  \"a\": 1,\n  \"b\" 2\n}", "(line 3, column 7)"),
            ("a + )", "(line 1, column 5)"),
            ("'open", "(line 1, column 6)"),
            ("é.b ]", "(line 1, column 5)"),
        ] {
            let message = place(text);
            assert!(message.ends_with(at), "{text:?}: {message}");
            assert!(!message.contains("Right"), "{message}");
        }
    }
}
