//! The fields of an `application/x-www-form-urlencoded` text: of a query, and of a body that says it is one.

use std::borrow::Cow;

/// Of one body. Fields beyond are as if they were not there: no form that people fill in has as many, and each is looked
/// at while a sender waits.
const MOST_FIELDS: usize = 1000;

/// The fields of a body. What doesn't decode to UTF-8 is missing, the value with its name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form<'a> {
    /// By name; those of one name in the order in which they were sent.
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Form<'a> {
    pub fn parse(body: &'a [u8]) -> Form<'a> {
        let mut fields: Vec<_> = pairs(body)
            .take(MOST_FIELDS)
            .filter_map(|(name, value)| Some((decoded(name)?, decoded(value)?)))
            .collect();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        Form { fields }
    }

    /// The values of a name, in the order in which they were sent.
    pub fn values(&self, name: &str) -> impl ExactSizeIterator<Item = &str> {
        let from = self.fields.partition_point(|(field, _)| **field < *name);
        let length = self.fields[from..].partition_point(|(field, _)| **field == *name);
        self.fields[from..from + length]
            .iter()
            .map(|(_, value)| &**value)
    }

    /// All of them, by name; those of one name in the order in which they were sent.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&**name, &**value))
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// The decoded values of one name of a query, in order.
pub(crate) fn query_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    pairs(query.as_bytes())
        .filter(move |(key, _)| decoded(key).is_some_and(|key| key == name))
        .filter_map(|(_, value)| decoded(value))
}

/// Names and values, still encoded. What has no `=` is a name with an empty value.
fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        })
}

/// Allocates only when there is something to decode.
fn decoded(text: &[u8]) -> Option<Cow<'_, str>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |b: u8| (b as char).to_digit(16).unwrap_or_default() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = tail;
            }
            // A lone percent sign stands for itself, as browsers have it.
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'f>(form: &'f Form<'_>, name: &str) -> Vec<&'f str> {
        form.values(name).collect()
    }

    #[test]
    fn a_name_has_its_values_in_the_order_in_which_they_were_sent() {
        let form = Form::parse(b"b=2&a=1&b=1&a+b=x%26y&b&=none&&items[0][sku]=s&caf%C3%A9=%C3%BC");
        assert_eq!(values(&form, "b"), ["2", "1", ""]);
        assert_eq!(values(&form, "a"), ["1"]);
        assert_eq!(values(&form, "a b"), ["x&y"]);
        assert_eq!(values(&form, ""), ["none"]);
        assert_eq!(values(&form, "items[0][sku]"), ["s"]);
        assert_eq!(values(&form, "café"), ["ü"]);
        assert_eq!(values(&form, "c"), [""; 0]);
    }

    #[test]
    fn what_is_not_utf8_is_missing_and_the_rest_is_there() {
        let form = Form::parse(b"a=%ff&b=\xff&\xff=1&%ff=1&c=1&c=%&d=%4");
        assert_eq!(values(&form, "a"), [""; 0]);
        assert_eq!(values(&form, "b"), [""; 0]);
        assert_eq!(values(&form, "c"), ["1", "%"]);
        assert_eq!(values(&form, "d"), ["%4"]);
        assert_eq!(form.fields.len(), 3);
    }

    #[test]
    fn fields_beyond_the_bound_are_not_looked_at() {
        let body = format!("{}last=1", "x=1&".repeat(MOST_FIELDS));
        let form = Form::parse(body.as_bytes());
        assert_eq!(values(&form, "x").len(), MOST_FIELDS);
        assert_eq!(values(&form, "last").len(), 0);
        let form = Form::parse(&body.as_bytes()[4..]);
        assert_eq!(values(&form, "last").len(), 1);
    }
}
