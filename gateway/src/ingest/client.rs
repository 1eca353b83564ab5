//! Whose address is it? The socket's, unless the socket is a proxy that we were told to trust.
//!
//! Each proxy appends the address it saw to `X-Forwarded-For`, so the list is believed from its right end, for as long as
//! the one who wrote is trusted; what a sender puts there itself is further left and is never reached.
//! `Forwarded` (RFC 7239) isn't read: no common ingress sends it without `X-Forwarded-For`.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The sender's address. IPv4 written as IPv6 (`::ffff:…`) becomes IPv4, so CIDRs mean what they say.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut sender = peer.to_canonical();
    if !is_trusted(&sender) {
        return sender;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for entry in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        // An entry that is no address was not written by a proxy we know: the one before it is the last we can name.
        let Some(address) = parse(entry) else { break };
        sender = address;
        if !is_trusted(&sender) {
            break;
        }
    }
    sender
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
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

    #[test]
    fn the_list_is_believed_from_the_right_through_trusted_proxies_only() {
        for (peer, lines, expected) in [
            ("198.51.100.9", &["1.2.3.4"][..], "198.51.100.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
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
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, line.parse().unwrap());
            }
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            assert_eq!(
                address(peer.parse().unwrap(), &headers, &trusted),
                expected.parse::<IpAddr>().unwrap(),
                "{peer} {lines:?}"
            );
        }
    }
}
