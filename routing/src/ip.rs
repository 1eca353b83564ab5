//! Sets of IP addresses, as allow and deny lists name them: `203.0.113.7`, `10.0.0.0/8`, `2001:db8::/32`.
//!
//! A set is sorted ranges that don't touch, so looking an address up costs the same few comparisons however many entries
//! were written. IPv4 written as IPv6 (`::ffff:…`) is IPv4, in entries and in addresses; a range of IPv6 that merely
//! contains it (`::/0`) says nothing about IPv4.

use std::net::IpAddr;

/// Addresses that are looked up; made of texts that [`parse`] takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// First and last addresses, sorted, with a gap between any two.
type Ranges<T> = Vec<(T, T)>;

/// The addresses of one entry, first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

/// Why a text names no addresses. `Display` says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    #[error(
        "`{0}` is no address and no CIDR range; write one as `203.0.113.7`, `10.0.0.0/8` or `2001:db8::/32`"
    )]
    Address(String),
    #[error("`{0}` has a prefix that is too long; IPv4 has up to /32, IPv6 up to /128")]
    Prefix(String),
}

/// The addresses of an entry. What follows the prefix counts for nothing: `10.1.2.3/8` is `10.0.0.0/8`.
pub fn parse(text: &str) -> Result<Range, InvalidRange> {
    let invalid = || InvalidRange::Address(text.to_owned());
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let written: IpAddr = address.parse().map_err(|_| invalid())?;
    let most = if written.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        // `parse` would take a `+`.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u8>().map_err(|_| invalid())?
        }
        Some(_) => return Err(invalid()),
    };
    if prefix > most {
        return Err(InvalidRange::Prefix(text.to_owned()));
    }
    let (first, last) = match written {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let first = v4.to_bits() & !host;
            return Ok(Range::V4(first, first | host));
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let first = v6.to_bits() & !host;
            (first, first | host)
        }
    };
    // All of it lies in `::ffff:0:0/96`, or none of it does that we would look up.
    Ok(if prefix >= 96 && first >> 32 == 0xffff {
        Range::V4(first as u32, last as u32)
    } else {
        Range::V6(first, last)
    })
}

impl AddressSet {
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => within(&self.v6, v6.to_bits()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<Range> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> AddressSet {
        let mut set = AddressSet::default();
        for range in ranges {
            match range {
                Range::V4(first, last) => set.v4.push((first, last)),
                Range::V6(first, last) => set.v6.push((first, last)),
            }
        }
        set.v4 = merged(set.v4);
        set.v6 = merged(set.v6);
        set
    }
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind > 0 && address <= ranges[behind - 1].1
}

fn merged<T: Copy + Ord>(mut ranges: Ranges<T>) -> Ranges<T> {
    ranges.sort_unstable();
    let mut merged: Ranges<T> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(entries: &[&str]) -> AddressSet {
        entries.iter().map(|entry| parse(entry).unwrap()).collect()
    }

    #[test]
    fn an_address_is_in_a_set_by_its_value_however_it_is_written() {
        let set = set(&[
            "203.0.113.7",
            "10.1.2.3/8",
            "::ffff:192.0.2.0/120",
            "2001:db8::/32",
            "fe80::1",
        ]);
        for (address, there) in [
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("::ffff:203.0.113.7", true),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("::ffff:10.1.2.3", true),
            // The old notation of IPv4 within IPv6 is another address.
            ("::10.1.2.3", false),
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("fe80::1", true),
            ("fe80::2", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), there, "{address}");
        }
    }

    #[test]
    fn everything_is_a_range_of_no_bits_and_ipv6_is_not_ipv4() {
        let (v4, v6) = (set(&["0.0.0.0/0"]), set(&["::/0"]));
        for (address, of_v4) in [
            ("255.255.255.255", true),
            ("0.0.0.0", true),
            ("::ffff:1.2.3.4", true),
            ("::", false),
            ("2001:db8::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                (v4.contains(address), v6.contains(address)),
                (of_v4, !of_v4)
            );
        }
        assert!(!AddressSet::default().contains("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_range_is_told_what_to_write() {
        for (text, told) in [
            ("", "is no address"),
            ("example.com", "is no address"),
            ("010.0.0.1", "is no address"),
            ("10.0.0.1.2", "is no address"),
            ("10.0.0.0/", "is no address"),
            ("10.0.0.0/+8", "is no address"),
            ("10.0.0.0/255.0.0.0", "is no address"),
            ("fe80::1%eth0", "is no address"),
            ("10.0.0.0/33", "prefix"),
            ("::/129", "prefix"),
            ("10.0.0.0/999", "is no address"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    proptest! {
        /// A list of many is the sum of its entries, whatever overlaps.
        #[test]
        fn a_set_is_the_union_of_its_entries(
            entries in proptest::collection::vec((0u32..1 << 12, 20u8..=32), 0..40),
            addresses in proptest::collection::vec(0u32..1 << 12, 40),
        ) {
            let ranges: Vec<Range> = entries
                .iter()
                .map(|(address, prefix)| {
                    let host = u32::MAX.checked_shr((*prefix).into()).unwrap_or(0);
                    let first = std::net::Ipv4Addr::from_bits(address & !host);
                    parse(&format!("{first}/{prefix}")).unwrap()
                })
                .collect();
            let set: AddressSet = ranges.iter().copied().collect();
            for address in addresses {
                let one = ranges.iter().any(|range| {
                    matches!(range, Range::V4(first, last) if (*first..=*last).contains(&address))
                });
                let address = std::net::Ipv4Addr::from_bits(address);
                prop_assert_eq!(set.contains(address.into()), one);
            }
        }
    }
}
