//! Following a path into an event.
//!
//! Most paths lead to one value, which is then kept for all rules that ask for it ([`Seen`]). Where there are several (a
//! header sent twice, `[*]`), each rule goes through them itself and stops at the first that it holds for.

use super::{
    Path, Segment,
    compare::{Found, Visit},
};
use crate::event::{EventView, Form, form::query_values};
use http::HeaderValue;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    fmt::{self, Write as _},
    net::IpAddr,
};

/// What a path leads to in one event.
#[derive(Debug)]
pub(super) enum Seen<'e> {
    Missing,
    Json(&'e Value),
    Text(Cow<'e, str>),
    Address(AddressText),
    /// A form as a whole.
    Form,
    /// More than one value, or possibly so.
    Several,
}

/// What the paths that many rules share lead to, by their slots. Of one event.
#[derive(Debug)]
pub(super) struct Shared<'e> {
    cells: [OnceCell<Seen<'e>>; SLOTS],
}

/// How many paths of a source are looked up once for all its connections: those that the most rules name. They are on the
/// stack, so that an event allocates nothing for them.
pub(super) const SLOTS: usize = 32;

/// The slot of a path that is looked up each time.
pub(super) const NO_SLOT: u8 = u8::MAX;

impl<'e> Shared<'e> {
    pub(super) fn new() -> Self {
        Shared {
            cells: [const { OnceCell::new() }; SLOTS],
        }
    }

    /// Whether `holds` for one of the values that the path leads to.
    pub(super) fn any(
        &self,
        slot: u8,
        path: &Path,
        event: &'e EventView<'_>,
        holds: Visit<'_>,
    ) -> bool {
        match self.cells.get(usize::from(slot)) {
            Some(cell) => cell
                .get_or_init(|| path.look(event))
                .any(path, event, holds),
            None => path.any(event, holds),
        }
    }
}

impl Seen<'_> {
    fn any(&self, path: &Path, event: &EventView<'_>, holds: Visit<'_>) -> bool {
        match self {
            Seen::Missing => false,
            Seen::Json(value) => holds(Found::Json(value)),
            Seen::Text(text) => holds(Found::Text(text)),
            Seen::Address(address) => holds(Found::Text(address.as_str())),
            Seen::Form => holds(Found::Form),
            Seen::Several => path.any_of_several(event, holds),
        }
    }

    fn text<'e>(mut values: impl Iterator<Item = Cow<'e, str>>) -> Seen<'e> {
        match (values.next(), values.next()) {
            (None, _) => Seen::Missing,
            (Some(one), None) => Seen::Text(one),
            (Some(_), Some(_)) => Seen::Several,
        }
    }
}

impl Path {
    /// Whether `holds` for one of the values that the path leads to.
    pub(super) fn any(&self, event: &EventView<'_>, holds: Visit<'_>) -> bool {
        self.look(event).any(self, event, holds)
    }

    /// Feeds a hash with the values that the path leads to, each with its type and length, so that no two lists of values
    /// look alike. False when there is none but null and empty text: the hash is of no use then.
    pub(crate) fn feed(&self, event: &EventView<'_>, hash: &mut Sha256) -> bool {
        let fed = RefCell::new((hash, false));
        self.any(event, &|found| {
            let (hash, some) = &mut *fed.borrow_mut();
            let mut feed = |kind: u8, bytes: &[u8]| {
                hash.update([kind]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            };
            let (kind, bytes) = match found {
                Found::Json(Value::Null) => return false,
                Found::Json(Value::String(text)) => (0, Cow::Borrowed(text.as_str())),
                Found::Text(text) => (0, Cow::Borrowed(text)),
                Found::Json(value) => (1, Cow::Owned(value.to_string())),
                Found::Form => (2, String::from_utf8_lossy(event.body)),
            };
            if !bytes.is_empty() {
                feed(kind, bytes.as_bytes());
                *some = true;
            }
            false
        });
        fed.into_inner().1
    }

    fn look<'e>(&self, event: &'e EventView<'_>) -> Seen<'e> {
        match self {
            Path::Method => Seen::Text(event.method.as_str().into()),
            Path::Path => Seen::Text(event.path.into()),
            Path::ContentType => event
                .content_type()
                .map_or(Seen::Missing, |value| Seen::Text(value.into())),
            Path::SourceIp => Seen::Address(AddressText::of(event.source_ip)),
            Path::Header(name) => Seen::text(header_values(event, name).map(Cow::Borrowed)),
            Path::Query(name) => Seen::text(query_values(event.query, name)),
            Path::Body(segments) => match (event.form(), event.json()) {
                (Some(form), _) => look_into_form(form, segments),
                (None, Some(_)) if segments.contains(&Segment::Each) => Seen::Several,
                (None, Some(json)) => {
                    let step = |value, segment| step(value, segment);
                    let end = segments.iter().try_fold(json, step);
                    end.map_or(Seen::Missing, Seen::Json)
                }
                (None, None) => Seen::Missing,
            },
        }
    }

    /// Each value in turn, until `holds` for one.
    fn any_of_several(&self, event: &EventView<'_>, holds: Visit<'_>) -> bool {
        match self {
            Path::Header(name) => header_values(event, name).any(|value| holds(Found::Text(value))),
            Path::Query(name) => {
                query_values(event.query, name).any(|value| holds(Found::Text(&value)))
            }
            Path::Body(segments) => match (event.form(), event.json()) {
                (Some(form), _) => {
                    form_values(form, segments).any(|value| holds(Found::Text(value)))
                }
                (None, Some(json)) => any_in(json, segments, holds),
                (None, None) => false,
            },
            Path::Method | Path::Path | Path::ContentType | Path::SourceIp => false,
        }
    }
}

/// A value that isn't UTF-8 is no text: it is missing rather than matched by its replacement characters.
fn header_values<'e>(event: &'e EventView<'_>, name: &str) -> impl Iterator<Item = &'e str> {
    let text = |value: &'e HeaderValue| std::str::from_utf8(value.as_bytes()).ok();
    event.headers.get_all(name).iter().filter_map(text)
}

fn look_into_form<'e>(form: &'e Form<'_>, segments: &[Segment]) -> Seen<'e> {
    match segments {
        [] if form.is_empty() => Seen::Missing,
        [] => Seen::Form,
        _ => Seen::text(form_values(form, segments).map(Cow::Borrowed)),
    }
}

/// A field of a form is a list of texts: `body.tag` and `body.tag[*]` are each of them, `body.tag[0]` is the first.
fn form_values<'e>(form: &'e Form<'_>, segments: &[Segment]) -> impl Iterator<Item = &'e str> {
    let (name, place) = match segments {
        [Segment::Key(name)] | [Segment::Key(name), Segment::Each] => (Some(name), None),
        [Segment::Key(name), Segment::Index(place)] => (Some(name), Some(*place as usize)),
        [Segment::Key(name), Segment::Key(place)] => match place.parse().ok() {
            Some(place) => (Some(name), Some(place)),
            None => (None, None),
        },
        _ => (None, None),
    };
    let values = name.map(|name| form.values(name)).into_iter().flatten();
    values
        .skip(place.unwrap_or_default())
        .take(place.map_or(usize::MAX, |_| 1))
}

/// As deep as the path has segments. Each element is visited once at most, whatever the number of wildcards.
fn any_in(value: &Value, segments: &[Segment], holds: Visit<'_>) -> bool {
    match (segments.split_first(), value) {
        (None, value) => holds(Found::Json(value)),
        (Some((Segment::Each, rest)), Value::Array(items)) => {
            items.iter().any(|item| any_in(item, rest, holds))
        }
        (Some((segment, rest)), value) => {
            step(value, segment).is_some_and(|value| any_in(value, rest, holds))
        }
    }
}

/// One step that leads to one value.
fn step<'v>(value: &'v Value, segment: &Segment) -> Option<&'v Value> {
    match (segment, value) {
        (Segment::Key(key), Value::Object(fields)) => fields.get(key),
        // `items.0.id` as well as `items[0].id`: both are in use elsewhere.
        (Segment::Key(key), Value::Array(items)) => {
            key.parse().ok().and_then(|place: usize| items.get(place))
        }
        (Segment::Index(place), Value::Array(items)) => items.get(*place as usize),
        _ => None,
    }
}

/// An address as text on the stack.
#[derive(Debug)]
pub(super) struct AddressText {
    bytes: [u8; 48],
    length: usize,
}

impl AddressText {
    fn of(address: IpAddr) -> AddressText {
        let mut text = AddressText {
            bytes: [0; 48],
            length: 0,
        };
        write!(text, "{}", address.to_canonical())
            .expect("the longest IPv6 text has 39 characters");
        text
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Write for AddressText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
