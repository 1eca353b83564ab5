//! A destination's URL, with `{path}` and `{query}` where the sender's own go.
//!
//! What a sender writes can fill these places and nothing else: a path can't climb out of the destination's, and neither
//! can reach the host, since placeholders are refused there.

use std::borrow::Cow;

/// A URL in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Path,
    Query,
}

impl Template {
    /// The error says what to write.
    pub fn parse(url: &str) -> Result<Template, &'static str> {
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let path_at = url[after_scheme..]
            .find(['/', '?', '#'])
            .map_or(url.len(), |at| after_scheme + at);
        if url[..path_at].contains(['{', '}']) {
            return Err(
                "a placeholder can't stand in the host: a sender would choose where deliveries go; write `{path}` behind the host's `/`",
            );
        }
        let query_at = url.find('?').unwrap_or(url.len());
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(open) = url[at..].find(['{', '}']).map(|found| at + found) {
            let (piece, length) = if url[open..].starts_with("{path}") {
                (Piece::Path, "{path}".len())
            } else if url[open..].starts_with("{query}") {
                (Piece::Query, "{query}".len())
            } else {
                return Err(
                    "placeholders are `{path}` and `{query}`; write other braces as `%7B` and `%7D`",
                );
            };
            match piece {
                Piece::Path if open > query_at => {
                    return Err("`{path}` stands before the `?` of the URL");
                }
                Piece::Query if open < query_at => {
                    return Err(
                        "`{query}` stands behind the `?` of the URL, as in `https://example.com/hooks?{query}`",
                    );
                }
                _ => {}
            }
            if open > at {
                pieces.push(Piece::Text(url[at..open].to_owned()));
            }
            pieces.push(piece);
            at = open + length;
        }
        if at < url.len() {
            pieces.push(Piece::Text(url[at..].to_owned()));
        }
        Ok(Template(pieces))
    }

    /// Whether it is the same for each event.
    pub fn is_fixed(&self) -> bool {
        !self
            .0
            .iter()
            .any(|piece| matches!(piece, Piece::Path | Piece::Query))
    }

    /// With what the sender's URL had behind the source's: `path` with or without its leading slash, `query` without its `?`.
    pub fn fill(&self, path: &str, query: &str) -> String {
        let mut url = String::with_capacity(64 + path.len() + query.len());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Path => url.push_str(&below(path)),
                Piece::Query => url.push_str(query),
            }
        }
        if query.is_empty() && self.0.last() == Some(&Piece::Query) {
            // An empty query leaves no `?` or `&` behind.
            url.truncate(url.trim_end_matches(['?', '&']).len());
        }
        url
    }
}

/// The path without its leading slash and without segments that would climb out of the URL they are put into, however they
/// are written.
fn below(path: &str) -> Cow<'_, str> {
    let path = path.trim_start_matches('/');
    if path.split('/').any(climbs) {
        let kept: Vec<&str> = path.split('/').filter(|segment| !climbs(segment)).collect();
        Cow::Owned(kept.join("/"))
    } else {
        Cow::Borrowed(path)
    }
}

/// Whether a receiver that decodes a segment, and takes a backslash for a slash, could read `.` or `..` in it.
fn climbs(segment: &str) -> bool {
    if !segment.contains(['.', '%', '\\']) {
        return false;
    }
    let plain = segment
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/")
        .replace("%5c", "\\");
    plain
        .split(['/', '\\'])
        .any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_path_and_query_fill_their_places() {
        for (url, path, query, filled) in [
            (
                "https://e.com/in/{path}",
                "/orders/7",
                "a=b",
                "https://e.com/in/orders/7",
            ),
            ("https://e.com/in/{path}", "", "", "https://e.com/in/"),
            (
                "https://e.com/{path}/x?{query}",
                "/a",
                "b=c&d",
                "https://e.com/a/x?b=c&d",
            ),
            ("https://e.com/h?{query}", "/a", "", "https://e.com/h"),
            (
                "https://e.com/h?t=1&{query}",
                "/a",
                "",
                "https://e.com/h?t=1",
            ),
            (
                "https://e.com/h?t=1&{query}",
                "/a",
                "t=2",
                "https://e.com/h?t=1&t=2",
            ),
            ("https://e.com?{query}", "", "a", "https://e.com?a"),
            ("https://e.com/fixed", "/a", "b", "https://e.com/fixed"),
        ] {
            let template = Template::parse(url).unwrap();
            assert_eq!(template.fill(path, query), filled);
            assert_eq!(template.is_fixed(), url.ends_with("fixed"));
        }
    }

    #[test]
    fn no_path_climbs_out_of_the_destinations_url() {
        let template = Template::parse("https://e.com/in/{path}").unwrap();
        for (path, filled) in [
            ("/../../admin", "admin"),
            ("/a/%2E%2e/b", "a/b"),
            ("/a/./b", "a/b"),
            ("//evil.example/x", "evil.example/x"),
            ("/a/..%2f..%2fadmin/b", "a/b"),
            ("/a/..\\admin/b", "a/b"),
            ("/a/%2e%2E%5Cadmin/b", "a/b"),
            ("/a/..;/b.c/...", "a/..;/b.c/..."),
        ] {
            assert_eq!(
                template.fill(path, ""),
                format!("https://e.com/in/{filled}"),
                "{path}"
            );
        }
    }

    #[test]
    fn a_placeholder_that_could_be_misread_is_refused() {
        for (url, says) in [
            ("https://{path}/", "host"),
            ("https://e.com:{query}/", "host"),
            ("https://{path}", "host"),
            ("{path}", "host"),
            ("https://e.com/{body}", "%7B"),
            ("https://e.com/}", "%7B"),
            ("https://e.com/{path", "%7B"),
            ("https://e.com/?a={path}", "before the `?`"),
            ("https://e.com/{query}", "behind the `?`"),
        ] {
            assert!(Template::parse(url).unwrap_err().contains(says), "{url}");
        }
    }
}
