//! PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): before a connection's first byte, a
//! load balancer that doesn't speak HTTP says whose connection it is.
//!
//! [`parse`] is a pure function of the bytes that are there. It takes no more than [`MOST_BYTES`] of a head, skips what it
//! doesn't need (the destination, the TLVs), and is only asked where the socket's address is one of `trustedProxies`: anybody
//! else's such head is no HTTP and is answered so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest head that is read. A version 1 line has 107 bytes at most, one of version 2 as many as its TLVs, of which a
/// client's certificate is the largest that is seen. A longer one counts as malformed.
pub const MOST_BYTES: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V1_MOST_BYTES: usize = 107;
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_HEAD_BYTES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So far it is a head, but not all of it.
    Incomplete,
    /// A whole head in the first `bytes`. `None`: the proxy speaks for itself (a health check), or of a socket without an
    /// address (`UNKNOWN`, a Unix socket); the connection's own address is the sender's then.
    Head {
        sender: Option<SocketAddr>,
        bytes: usize,
    },
    Malformed,
}

/// Reads the beginning of a connection.
pub fn parse(read: &[u8]) -> Parsed {
    if begins(read, V1) {
        v1(read)
    } else if begins(read, V2) {
        v2(read)
    } else {
        Parsed::Malformed
    }
}

/// As far as there is anything.
fn begins(read: &[u8], signature: &[u8]) -> bool {
    let both = read.len().min(signature.len());
    read[..both] == signature[..both]
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn v1(read: &[u8]) -> Parsed {
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
        return match read.len() < V1_MOST_BYTES {
            true => Parsed::Incomplete,
            false => Parsed::Malformed,
        };
    };
    let bytes = end + 1;
    if bytes > V1_MOST_BYTES {
        return Parsed::Malformed;
    }
    let line = read[..end]
        .strip_suffix(b"\r")
        .and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line.and_then(|line| line.strip_prefix("PROXY ")) else {
        return Parsed::Malformed;
    };
    // What follows it says nothing that counts.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Head {
            sender: None,
            bytes,
        };
    }
    match v1_sender(line) {
        Some(sender) => Parsed::Head {
            sender: Some(sender),
            bytes,
        },
        None => Parsed::Malformed,
    }
}

fn v1_sender(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (sender, _receiver) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| word.parse::<u16>().ok()).flatten()
    };
    let (port, _) = (port()?, port()?);
    words
        .next()
        .is_none()
        .then_some(SocketAddr::new(sender, port))
}

fn v2(read: &[u8]) -> Parsed {
    let Some(head) = read.first_chunk::<V2_HEAD_BYTES>() else {
        return Parsed::Incomplete;
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let bytes = V2_HEAD_BYTES + length;
    let (version, command) = (head[12] >> 4, head[12] & 0xf);
    let (family, protocol) = (head[13] >> 4, head[13] & 0xf);
    if version != 2 || command > 1 || family > 3 || protocol > 2 || bytes > MOST_BYTES {
        return Parsed::Malformed;
    }
    let Some(addresses) = read.get(V2_HEAD_BYTES..bytes) else {
        return Parsed::Incomplete;
    };
    // LOCAL: what family and addresses it has is to be ignored.
    let sender = match (command, family) {
        (1, 1) => addresses.first_chunk::<12>().map(|at| {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *at;
            Some((Ipv4Addr::new(a, b, c, d).into(), [high, low]))
        }),
        (1, 2) => addresses.first_chunk::<36>().map(|at| {
            let sender: [u8; 16] = at[..16].try_into().expect("sixteen bytes are sixteen");
            Some((Ipv6Addr::from(sender).into(), [at[32], at[33]]))
        }),
        // Two paths of a Unix socket, or nothing.
        (1, 3) => (addresses.len() >= 216).then_some(None),
        _ => Some(None),
    };
    match sender {
        Some(sender) => Parsed::Head {
            sender: sender.map(|(address, port): (IpAddr, _)| {
                SocketAddr::new(address, u16::from_be_bytes(port))
            }),
            bytes,
        },
        // Shorter than its family's addresses.
        None => Parsed::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_head(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut head = V2.to_vec();
        head.extend([version_command, family]);
        head.extend((rest.len() as u16).to_be_bytes());
        head.extend(rest);
        head
    }

    fn of_v4(tlvs: &[u8]) -> Vec<u8> {
        [&[203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb], tlvs].concat()
    }

    fn of_v6() -> Vec<u8> {
        let [from, to] =
            ["2001:db8::7", "2001:db8::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        [&from[..], &to, &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    /// Each of these is a whole head, whatever follows, and incomplete at every byte before its end.
    #[test]
    fn heads_of_both_versions_name_the_sender() {
        let unix = vec![b'x'; 216];
        for (head, sender) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n".to_vec(), Some("203.0.113.7:56324")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), Some("[2001:db8::7]:56324")),
            (
                b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec(),
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec(),
                None,
            ),
            (v2_head(0x21, 0x11, &of_v4(b"")), Some("203.0.113.7:56324")),
            (v2_head(0x21, 0x12, &of_v4(b"")), Some("203.0.113.7:56324")),
            (v2_head(0x21, 0x11, &of_v4(b"\x03\x00\x04abcd\xea\x00\x01x")), Some("203.0.113.7:56324")),
            (v2_head(0x21, 0x21, &of_v6()), Some("[2001:db8::7]:56324")),
            (v2_head(0x21, 0x31, &unix), None),
            (v2_head(0x21, 0x00, b""), None),
            (v2_head(0x20, 0x00, b""), None),
            (v2_head(0x20, 0x11, &of_v4(b"")), None),
            (v2_head(0x20, 0x11, b"short"), None),
            (v2_head(0x21, 0x11, &of_v4(&[0; MOST_BYTES - 28])), Some("203.0.113.7:56324")),
        ] {
            let whole = Parsed::Head {
                sender: sender.map(|sender| sender.parse().unwrap()),
                bytes: head.len(),
            };
            assert_eq!(parse(&head), whole);
            assert_eq!(parse(&[&head[..], b"POST / HTTP/1.1\r\n"].concat()), whole);
            for end in 0..head.len() {
                assert_eq!(parse(&head[..end]), Parsed::Incomplete, "{end} of {head:?}");
            }
        }
    }

    #[test]
    fn what_is_no_head_is_malformed_as_soon_as_that_is_known() {
        for head in [
            &b"G"[..],
            b"POST / HTTP/1.1\r\n",
            b"PROXX",
            b"PRI * HTTP/2.0",
            b"\r\n\r\n\0\r\nQUIX",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 56324\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443 more\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 65536\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 +1 443\r\n",
            b"PROXY TCP4  203.0.113.7 10.0.0.1 1 443\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n",
            b"PROXY TCP6 203.0.113.7 10.0.0.1 1 443\r\n",
            b"PROXY TCP4 203.0.113.007 10.0.0.1 1 443\r\n",
            b"PROXY UDP4 203.0.113.7 10.0.0.1 1 443\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY \xff\r\n",
            b"PROXY \r\n",
            &[b'P'; 0x100],
        ] {
            assert_eq!(parse(head), Parsed::Malformed, "{head:?}");
        }
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        assert_eq!(parse(&endless[..V1_MOST_BYTES]), Parsed::Malformed);
        for head in [
            v2_head(0x11, 0x11, &of_v4(b"")),
            v2_head(0x22, 0x11, &of_v4(b"")),
            v2_head(0x21, 0x41, &of_v4(b"")),
            v2_head(0x21, 0x13, &of_v4(b"")),
            v2_head(0x21, 0x11, b"short"),
            v2_head(0x21, 0x21, &of_v4(b"")),
            v2_head(0x21, 0x31, &of_v4(b"")),
            v2_head(0x21, 0x11, &of_v4(&[0; MOST_BYTES - 27])),
        ] {
            assert_eq!(parse(&head), Parsed::Malformed, "{head:?}");
        }
    }

    /// A head that is cut, spliced and overwritten at random is judged without a panic, and never said to be longer than
    /// what was read or than the bound.
    #[test]
    fn no_bytes_make_a_head_longer_than_itself() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let whole = [
            b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\nGET".to_vec(),
            b"PROXY UNKNOWN \r\n".to_vec(),
            v2_head(0x21, 0x11, &of_v4(b"\x03\x00\x04abcd")),
            v2_head(0x21, 0x21, &of_v6()),
        ];
        for _ in 0..100_000 {
            let mut read = whole[random.random_range(0..whole.len())].clone();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..read.len());
                read[at] = random.random();
            }
            read.truncate(random.random_range(0..=read.len()));
            if let Parsed::Head { bytes, .. } = parse(&read) {
                assert!(bytes <= read.len().min(MOST_BYTES), "{read:?}");
            }
        }
    }
}
