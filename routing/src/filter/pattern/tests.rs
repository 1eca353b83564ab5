use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;

#[track_caller]
fn refused(pattern: &str, expected: Expect) {
    expected.assert_eq(&Pattern::parse(pattern).expect_err(pattern));
}

#[test]
fn a_pattern_is_found_anywhere_unless_it_says_otherwise() {
    for (pattern, text, expected) in [
        ("paid", "order.paid.late", true),
        ("^paid", "order.paid", false),
        (r"^order\.(paid|created)$", "order.paid", true),
        (r"^order\.(paid|created)$", "order.paid.late", false),
        ("(?i)PAID", "order.paid", true),
        (r"^\w+@\w+\.com$", "jürgen@example.com", true),
        (r"^[A-Z]{2}\d{6,12}$", "NL123456", true),
        ("^$", "", true),
        ("", "anything", true),
        ("é.$", "café!", true),
    ] {
        let pattern = Pattern::parse(pattern).expect(pattern);
        assert_eq!(pattern.is_in(text), expected, "{pattern:?} in {text}");
    }
}

#[test]
fn a_mistake_in_a_pattern_names_its_place() {
    refused(
        "a(b",
        expect![[
            r#"the pattern `a(b` is wrong at character 2: unclosed group; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    refused(
        "é[z-a]",
        expect![[
            r#"the pattern `é[z-a]` is wrong at character 3: invalid character class range, the start must be <= the end; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    refused(
        "a(?=b)",
        expect![[
            r#"the pattern `a(?=b)` is wrong at character 2: look-around, including look-ahead and look-behind, is not supported; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    refused(
        r"(a)\1",
        expect![[
            r#"the pattern `(a)\1` is wrong at character 4: backreferences are not supported; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    refused(
        r"\p{Nonsense}",
        expect![[
            r#"the pattern `\p{Nonsense}` is wrong at character 1: Unicode property not found; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    refused(
        &format!("{}a{}", "(".repeat(40), ")".repeat(40)),
        expect![[
            r#"the pattern `((((((((((((((((((((((((((((((((((((((((a))))))))))))))))))))))))))))))))))))))))` is wrong at character 33: exceed the maximum number of nested parentheses/brackets (32); the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
}

#[test]
fn a_pattern_that_expands_into_much_is_refused() {
    refused(
        "[ab]*a[ab]{600}c",
        expect![
            "the pattern `[ab]*a[ab]{600}c` is too large: with its repetitions written out it has 603 characters, at most 512 are allowed; repeat less, or write `+` or `*` in place of a number"
        ],
    );
    refused(
        "((a{1000}){1000}){1000}",
        expect![
            "the pattern `((a{1000}){1000}){1000}` is too large: with its repetitions written out it has 1000000000 characters, at most 512 are allowed; repeat less, or write `+` or `*` in place of a number"
        ],
    );
    refused(
        r"\w{20}",
        expect![[
            r#"the pattern `\w{20}` is too large when compiled; `\w`, `\d` and `\s` stand for the characters of all languages: write `[A-Za-z0-9_]`, `[0-9]` and `[ \t]`"#
        ]],
    );
    assert!(Pattern::parse("[ab]*a[ab]{500}c").is_ok());
}

#[test]
fn a_row_holds_the_text_and_one_that_is_wrong_is_refused() {
    let pattern = Pattern::parse("^a.b$").expect("a pattern");
    let text = serde_json::to_string(&pattern).expect("it serialises");
    assert_eq!(text, r#""^a.b$""#);
    let back: Pattern = serde_json::from_str(&text).expect("it reads back");
    assert_eq!(back, pattern);
    assert!(back.is_in("axb"));
    assert!(serde_json::from_str::<Pattern>(r#""(""#).is_err());
}

proptest! {
    #[test]
    fn no_pattern_makes_parsing_or_matching_panic(pattern in r"[\PC()\[\]{}*+?|^$\\0-9,-]{0,30}", text in "\\PC{0,40}") {
        if let Ok(pattern) = Pattern::parse(&pattern) {
            pattern.is_in(&text);
        }
    }
}
