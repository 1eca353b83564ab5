//! `X-Forwarded-For` and `Forwarded`: nobody who isn't trusted chooses an address.

use crate::request::Request;
use gateway::ingest::client;
use ipnet::IpNet;
use std::net::IpAddr;

pub fn run(data: &[u8]) {
    let request = Request::read(data);
    let trusted: [IpNet; 2] =
        ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().expect("a net"));
    let [proxy, stranger] =
        ["10.0.0.1", "192.0.2.1"].map(|ip| ip.parse::<IpAddr>().expect("an IP"));
    let seen = client::address(proxy, &request.headers, &trusted);
    assert_eq!(seen, seen.to_canonical(), "CIDRs must mean what they say");
    assert_eq!(
        client::address(stranger, &request.headers, &trusted),
        stranger
    );
}
