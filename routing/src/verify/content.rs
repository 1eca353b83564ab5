//! What is signed, made of the pieces of a request, and the time that is among them.

use super::{Refused, header};
use crate::event::EventView;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// Fields of a signed form. A form with more is refused: each is sorted while a sender waits, and one that was left out
/// would be a field that nobody signed.
const MOST_FIELDS: usize = 1000;

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    Literal(String),
    /// The timestamp as sent.
    Timestamp,
    /// The event's id as sent.
    Id,
    /// The body as sent.
    Body,
    /// The URL that the sender called: the installation's public URL, then path and query as sent.
    Url,
    Method,
    /// The URL without scheme, host and query.
    Path,
    /// Name and value of each field of a form, decoded and in the order of their names, as Twilio signs them; of another body nothing.
    Form,
}

/// Where a value of a request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Lower case.
    Header(String),
    /// One of the pairs of a header, as `t=…,v1=…`.
    Pair {
        header: String,
        key: String,
    },
    /// In a JSON body: a JSON pointer, as `/signature/token`.
    Field(String),
    Query(String),
}

impl Place {
    pub fn header(name: &str) -> Place {
        Place::Header(name.to_owned())
    }

    pub fn pair(header: &str, key: &str) -> Place {
        Place::Pair {
            header: header.to_owned(),
            key: key.to_owned(),
        }
    }

    /// The first value there.
    pub(super) fn read<'e>(&self, event: &'e EventView<'_>) -> Option<Cow<'e, str>> {
        match self {
            Place::Header(name) => event
                .headers
                .get(name)
                .map(|value| header::text(value).into()),
            Place::Pair { header, key } => header::pairs(header::text(event.headers.get(header)?))
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.into()),
            Place::Field(pointer) => match event.json()?.pointer(pointer)? {
                Value::String(text) => Some(text.as_str().into()),
                Value::Number(number) => Some(number.to_string().into()),
                _ => None,
            },
            Place::Query(name) => crate::event::form::query_values(event.query, name).next(),
        }
    }

    /// For people, as in `docs/verification.md`.
    pub fn describe(&self) -> String {
        match self {
            Place::Header(name) => format!("`{name}`"),
            Place::Pair { header, key } => format!("`{header}: {key}=…`"),
            Place::Field(pointer) => format!("`{}` in the body", pointer[1..].replace('/', ".")),
            Place::Query(name) => format!("`{name}` in the query"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTimestamp {
    pub at: Place,
    #[serde(default)]
    pub unit: TimeUnit,
    /// Most distance from now, into the past and into the future; `None`: the time is signed, but not judged.
    pub tolerance_ms: Option<u64>,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Since 1970.
    #[default]
    Seconds,
    /// Since 1970.
    Milliseconds,
    /// `2026-11-21T14:33:00Z`
    Rfc3339,
}

impl TimeUnit {
    /// How far the time is from now; `None`: it isn't a time so written.
    fn distance_ms(self, text: &str, now: Timestamp) -> Option<u64> {
        // Digits only: no sign, no fraction, no space.
        let digits = || {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<i64>().ok()).flatten()
        };
        Some(match self {
            TimeUnit::Seconds => now.as_second().abs_diff(digits()?).saturating_mul(1_000),
            TimeUnit::Milliseconds => now.as_millisecond().abs_diff(digits()?),
            TimeUnit::Rfc3339 => {
                let then: Timestamp = text.parse().ok()?;
                now.as_millisecond().abs_diff(then.as_millisecond())
            }
        })
    }
}

impl SignedTimestamp {
    pub(super) fn check(&self, text: &str, now: Timestamp) -> Result<(), Refused> {
        let distance = self
            .unit
            .distance_ms(text, now)
            .ok_or(Refused::TimestampMissing)?;
        match self.tolerance_ms {
            Some(tolerance) if distance > tolerance => Err(Refused::TimestampOutsideTolerance),
            _ => Ok(()),
        }
    }
}

/// Reads a `signedContent` template: text with `{body}`, `{timestamp}` and the like. The error says what to write.
pub fn parse_content(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| {
            format!("`{template}` has a brace that isn't closed; write `{{timestamp}}.{{body}}`")
        })?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        pieces.push(match name {
            "body" => Piece::Body,
            "timestamp" => Piece::Timestamp,
            "id" => Piece::Id,
            "url" => Piece::Url,
            "method" => Piece::Method,
            "path" => Piece::Path,
            "form" => Piece::Form,
            _ => {
                return Err(format!(
                    "`{{{name}}}` is not known here; there are `{{body}}`, `{{form}}`, `{{timestamp}}`, `{{id}}`, `{{url}}`, `{{method}}` and `{{path}}`"
                ));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    match pieces.contains(&Piece::Body) || pieces.contains(&Piece::Form) {
        true => Ok(pieces),
        false => Err(
            "the body must be part of what is signed; write `{body}` or `{timestamp}.{body}`"
                .to_owned(),
        ),
    }
}

/// A form field's name and value.
type Field<'e> = (Cow<'e, [u8]>, Cow<'e, [u8]>);

/// The values of a request that the pieces stand for.
pub(super) struct Signed<'e, 'v> {
    pub(super) event: &'e EventView<'v>,
    pub(super) timestamp: Cow<'e, str>,
    pub(super) id: Cow<'e, str>,
    form: Vec<Field<'e>>,
}

impl<'e, 'v> Signed<'e, 'v> {
    /// Reads what the content names, and judges the time.
    pub(super) fn read(
        content: &[Piece],
        timestamp: Option<&SignedTimestamp>,
        id: Option<&Place>,
        event: &'e EventView<'v>,
        now: Timestamp,
    ) -> Result<Signed<'e, 'v>, Refused> {
        let timestamp = match timestamp {
            None => Cow::default(),
            Some(signed) => {
                let text = signed.at.read(event).ok_or(Refused::TimestampMissing)?;
                signed.check(&text, now)?;
                text
            }
        };
        let id = match id {
            None => Cow::default(),
            // The id is a part of what is signed: without it there is no signature to check.
            Some(place) => place.read(event).ok_or(Refused::SignatureMissing)?,
        };
        let form = match content.contains(&Piece::Form) && is_form(event) {
            true => form(event.body)?,
            false => Vec::new(),
        };
        Ok(Signed {
            event,
            timestamp,
            id,
            form,
        })
    }

    /// What is a form, but signed by its hash.
    pub(super) fn without_form(&mut self) {
        self.form.clear();
    }

    /// Each part in order. `base` is what stands before the path in [`Piece::Url`].
    pub(super) fn each(&self, content: &[Piece], base: Base<'_>, mut part: impl FnMut(&[u8])) {
        for piece in content {
            match piece {
                Piece::Literal(text) => part(text.as_bytes()),
                Piece::Timestamp => part(self.timestamp.as_bytes()),
                Piece::Id => part(self.id.as_bytes()),
                Piece::Body => part(self.event.body),
                Piece::Url => {
                    part(base.url.as_bytes());
                    part(base.port.as_bytes());
                    part(base.prefix.as_bytes());
                    part(self.event.target.as_bytes());
                }
                Piece::Method => part(self.event.method.as_str().as_bytes()),
                Piece::Path => {
                    part(base.prefix.as_bytes());
                    part(path(self.event.target).as_bytes());
                }
                Piece::Form => {
                    for (name, value) in &self.form {
                        part(name);
                        part(value);
                    }
                }
            }
        }
    }

    pub(super) fn bytes(&self, content: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.event.body.len() + 128);
        self.each(content, Base::of(self.event.public_url), |part| {
            bytes.extend_from_slice(part)
        });
        bytes
    }
}

fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// The public URL in its parts, as `https://hooks.example.com`, ``, `/prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base<'u> {
    /// Scheme and host, and the port unless `port` has one.
    url: &'u str,
    port: &'static str,
    prefix: &'u str,
}

impl<'u> Base<'u> {
    pub(super) fn of(public_url: &'u str) -> Base<'u> {
        let whole = public_url.trim_end_matches('/');
        let host = whole.find("://").map_or(0, |at| at + 3);
        let end = whole[host..].find('/').map_or(whole.len(), |at| host + at);
        Base {
            url: &whole[..end],
            port: "",
            prefix: &whole[end..],
        }
    }

    /// The same with the scheme's own port written out, or left out: Twilio does the one or the other.
    pub(super) fn other_port(self) -> Option<Base<'u>> {
        let (scheme, host) = self.url.split_once("://")?;
        let default = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        if let Some(url) = self.url.strip_suffix(default) {
            return Some(Base { url, ..self });
        }
        // Another port is always written.
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        (!has_port).then_some(Base {
            port: default,
            ..self
        })
    }
}

/// As the request says; a body of another type is signed by its hash or not at all.
pub(super) fn is_form(event: &EventView<'_>) -> bool {
    event.content_type().is_some_and(|media_type| {
        media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// Names and values, decoded, in the order of names and then of values, equal pairs once: so Twilio's libraries have it.
fn form(body: &[u8]) -> Result<Vec<Field<'_>>, Refused> {
    let mut fields = Vec::new();
    for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        if fields.len() == MOST_FIELDS {
            return Err(Refused::SignatureMalformed);
        }
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let value = pair.get(at + 1..).unwrap_or_default();
        fields.push((decoded(&pair[..at]), decoded(value)));
    }
    fields.sort();
    fields.dedup();
    Ok(fields)
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..]) => match hex::decode([*high, *low]).as_deref() {
                Ok([byte]) => {
                    bytes.push(*byte);
                    rest = tail;
                }
                _ => bytes.push(b'%'),
            },
            (other, _) => bytes.push(*other),
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_told_apart_into_host_and_prefix_and_its_port_may_be_written_or_not() {
        let base = Base::of("https://hooks.example.com/a/b/");
        assert_eq!(
            (base.url, base.port, base.prefix),
            ("https://hooks.example.com", "", "/a/b")
        );
        let other = |url| {
            Base::of(url)
                .other_port()
                .map(|base| (base.url.to_owned(), base.port))
        };
        assert_eq!(
            other("https://a.b"),
            Some(("https://a.b".to_owned(), ":443"))
        );
        assert_eq!(
            other("https://a.b:443/x"),
            Some(("https://a.b".to_owned(), ""))
        );
        assert_eq!(
            other("http://[::1]"),
            Some(("http://[::1]".to_owned(), ":80"))
        );
        assert_eq!(other("https://a.b:8443"), None);
        assert_eq!(other(""), None);
    }

    #[test]
    fn the_fields_of_a_form_are_sorted_and_equal_ones_are_there_once() {
        let fields = form(b"b=2&a=%41+x&b=1&b=2&&c&d=%4").expect("few fields");
        let text: Vec<(String, String)> = fields
            .iter()
            .map(|(name, value)| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                (text(name), text(value))
            })
            .collect();
        let expected = [("a", "A x"), ("b", "1"), ("b", "2"), ("c", ""), ("d", "%4")];
        assert_eq!(text, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(
            form("a=1&".repeat(MOST_FIELDS + 1).as_bytes()),
            Err(Refused::SignatureMalformed)
        );
    }
}
