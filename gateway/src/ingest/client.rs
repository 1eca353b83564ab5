//! Whose address is it? The socket's, unless the socket is a proxy that we were told to trust.
//!
//! Each proxy appends the address it saw to `X-Forwarded-For` or to `Forwarded` (RFC 7239), so the list is believed from its
//! right end, for as long as the one who wrote is trusted; what a sender puts there itself is further left and is never
//! reached. `Forwarded` counts when there is no `X-Forwarded-For`: a proxy that writes the one and lets the other through
//! would let its clients choose their address, so it has to drop the one that it doesn't write.
//!
//! The socket's own address is the one that PROXY protocol told, where that is spoken (`server::proxy_protocol`).

use http::{HeaderMap, header::FORWARDED};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The sender's address. IPv4 written as IPv6 (`::ffff:…`) becomes IPv4, so CIDRs mean what they say.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(&peer, trusted) {
        return peer;
    }
    if headers.contains_key(X_FORWARDED_FOR) {
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        return believed(peer, entries.map(node), trusted);
    }
    let lines = headers.get_all(FORWARDED).iter().rev();
    let entries = lines.flat_map(|line| from_right(line.as_bytes(), b','));
    believed(peer, entries.map(forwarded_for), trusted)
}

/// Whether what this address says of others is believed.
pub fn is_trusted(address: &IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// From the nearest proxy to the farthest, for as long as each is trusted.
fn believed(
    peer: IpAddr,
    entries: impl Iterator<Item = Option<IpAddr>>,
    trusted: &[IpNet],
) -> IpAddr {
    let mut sender = peer;
    for entry in entries {
        // An entry that is no address (`unknown`, `_hidden`) was not written by a proxy that names addresses: the one before
        // it is the last we can name.
        let Some(address) = entry else { break };
        sender = address;
        if !is_trusted(&sender, trusted) {
            break;
        }
    }
    sender
}

/// `for` of one element of `Forwarded`, as `for=192.0.2.60;proto=https` or `For="[2001:db8::17]:4711"`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let value = from_right(element, b';').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let name = pair[..at].trim_ascii();
        name.eq_ignore_ascii_case(b"for")
            .then(|| pair[at + 1..].trim_ascii())
    })?;
    match value.strip_prefix(b"\"") {
        // No address has a character that needs a backslash.
        Some(quoted) => node(quoted.strip_suffix(b"\"")?),
        None => node(value),
    }
}

/// The parts between separators that stand outside of quotes, the last first. Quotes are matched from the right as well: what
/// a proxy appended is read in the same way whatever a sender left open before it.
fn from_right(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        for at in (0..line.len()).rev() {
            match line[at] {
                b'"' if quoted => quoted = is_escaped(&line[..at]),
                b'"' => quoted = true,
                byte if byte == separator && !quoted => {
                    rest = Some(&line[..at]);
                    return Some(&line[at + 1..]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(line)
    })
}

/// Whether what follows is a character of a quoted text rather than its end.
fn is_escaped(before: &[u8]) -> bool {
    before
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count()
        % 2
        == 1
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`; also with an obfuscated port, as
/// `192.0.2.1:_p`.
fn node(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let text = text.split_once(":_").map_or(text, |(text, _)| text);
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text.parse::<SocketAddr>() {
            Ok(socket) => socket.ip(),
            Err(_) => text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, name: &'static str, lines: &[&str], expected: &str) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(
            address(peer.parse().unwrap(), &headers, &trusted),
            expected.parse::<IpAddr>().unwrap(),
            "{peer} {lines:?}"
        );
    }

    #[test]
    fn the_list_is_believed_from_the_right_through_trusted_proxies_only() {
        for (peer, lines, expected) in [
            ("198.51.100.9", &["1.2.3.4"][..], "198.51.100.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
            (
                "10.0.0.1",
                &["6.6.6.6, 203.0.113.7, 10.1.1.1"],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &["6.6.6.6", "203.0.113.7 , 10.1.1.1"],
                "203.0.113.7",
            ),
            ("10.0.0.1", &["203.0.113.7:55123"], "203.0.113.7"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["203.0.113.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["unknown, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            check(peer, X_FORWARDED_FOR, lines, expected);
        }
    }

    #[test]
    fn forwarded_is_believed_in_the_same_way_and_in_all_its_spellings() {
        for (peer, lines, expected) in [
            ("198.51.100.9", &["for=1.2.3.4"][..], "198.51.100.9"),
            ("10.0.0.1", &["for=203.0.113.7"], "203.0.113.7"),
            (
                "10.0.0.1",
                &["For=6.6.6.6, for=203.0.113.7;proto=https;by=10.0.0.1"],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &[
                    "for=6.6.6.6",
                    "proto=https; FOR=\"203.0.113.7:80\" , for=10.1.1.1",
                ],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &["for=\"[2001:db8:cafe::17]:4711\""],
                "2001:db8:cafe::17",
            ),
            (
                "10.0.0.1",
                &["for=\"[2001:db8:cafe::17]\""],
                "2001:db8:cafe::17",
            ),
            ("10.0.0.1", &["for=\"203.0.113.7:_port\""], "203.0.113.7"),
            // A comma within quotes parts nothing.
            (
                "10.0.0.1",
                &["for=203.0.113.7;by=\"a, for=6.6.6.6\""],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &["for=203.0.113.7;by=\"a\\\", for=6.6.6.6\""],
                "203.0.113.7",
            ),
            // Whoever opens quotes and doesn't close them hides nothing of what a proxy appends.
            (
                "10.0.0.1",
                &["for=6.6.6.6;host=\"x, for=203.0.113.7"],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &["for=6.6.6.6;host=\"x, for=\"203.0.113.7:1\";by=_b"],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &["for=6.6.6.6;host=\"x\\, for=\"203.0.113.7:1\""],
                "203.0.113.7",
            ),
            ("10.0.0.1", &["for=_hidden"], "10.0.0.1"),
            ("10.0.0.1", &["for=\"_SEVKISEK\", for=10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["for=unknown"], "10.0.0.1"),
            ("10.0.0.1", &["for=203.0.113.7, proto=http"], "10.0.0.1"),
            ("10.0.0.1", &["for=\"203.0.113.7"], "10.0.0.1"),
            ("10.0.0.1", &["", "="], "10.0.0.1"),
        ] {
            check(peer, "forwarded", lines, expected);
        }
    }

    #[test]
    fn forwarded_counts_only_without_x_forwarded_for() {
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "203.0.113.7".parse().unwrap());
        headers.insert(FORWARDED, "for=6.6.6.6".parse().unwrap());
        let sender = address(
            "10.0.0.1".parse().unwrap(),
            &headers,
            &["10.0.0.0/8".parse().unwrap()],
        );
        assert_eq!(sender.to_string(), "203.0.113.7");
    }
}
