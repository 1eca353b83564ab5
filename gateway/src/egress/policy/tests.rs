use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_that_are_not_of_the_public_internet_are_refused() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.1.1",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::10.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:0a00:0001::",
        "2001::1",
        "2001:db8::1",
        "2001:20::1",
        "3fff::1",
        "100::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
        "2600::5efe:10.0.0.1",
        "2600::200:5efe:127.0.0.1",
    ] {
        assert!(
            Policy::default().check("host.example", ip(text)).is_err(),
            "{text}"
        );
    }
}

#[test]
fn public_addresses_are_reached_also_inside_a_translation() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "169.253.0.1",
        "192.0.1.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "::ffff:8.8.8.8",
        "2001:4860:4860::8888",
        "2001:200::1",
    ] {
        assert_eq!(
            Policy::default().check("host.example", ip(text)),
            Ok(()),
            "{text}"
        );
    }
}

#[test]
fn a_rule_admits_a_network_a_name_or_all_names_below_one() {
    let policy = Policy {
        allow: [
            "10.1.0.0/16",
            "*.svc.cluster.local",
            "Internal.Example.",
            "fd00::/8",
        ]
        .iter()
        .map(|r| r.parse().unwrap())
        .collect(),
        ..Policy::default()
    };
    for (host, address) in [
        ("x", "10.1.2.3"),
        ("x", "::ffff:10.1.2.3"),
        ("orders.shop.svc.cluster.local", "10.9.9.9"),
        ("ORDERS.shop.svc.cluster.local.", "10.9.9.9"),
        ("internal.example", "192.168.0.1"),
        ("x", "fd00::5"),
    ] {
        assert_eq!(policy.check(host, ip(address)), Ok(()), "{host} {address}");
    }
    for (host, address) in [
        ("x", "10.2.0.1"),
        ("svc.cluster.local", "10.9.9.9"),
        ("evilsvc.cluster.local", "10.9.9.9"),
        ("orders.svc.cluster.local.evil.example", "10.9.9.9"),
        ("internal.example.evil", "192.168.0.1"),
        // An allowed IPv4 network doesn't open the translations that carry it.
        ("x", "64:ff9b::10.1.2.3"),
    ] {
        assert!(policy.check(host, ip(address)).is_err(), "{host} {address}");
    }
}

#[test]
fn a_metadata_service_is_reached_only_when_it_is_named() {
    let allowed = |rule: &str| {
        Policy {
            allow: vec![rule.parse().unwrap()],
            ..Policy::default()
        }
        .check("meta.example", ip("169.254.169.254"))
        .is_ok()
    };
    assert!(allowed("169.254.169.254") && allowed("169.254.169.254/32"));
    assert!(
        !allowed("169.254.0.0/16")
            && !allowed("0.0.0.0/0")
            && !allowed("meta.example")
            && !allowed("*.example")
    );
}

#[test]
fn a_rule_that_could_be_misread_is_refused() {
    for text in [
        "",
        "*",
        "*.",
        "10.0.0",
        "10.0.0.0/33",
        "0x7f000001",
        "2130706433",
        "a..b",
        "*.*.local",
        "http://x",
        "a b",
        "host:80",
    ] {
        assert!(text.parse::<Rule>().is_err(), "{text}");
    }
    assert_eq!(
        "10.0.0.7/8".parse(),
        Ok(Rule::Net("10.0.0.0/8".parse().unwrap()))
    );
    assert_eq!(
        "::ffff:10.0.0.1".parse(),
        Ok(Rule::Net("10.0.0.1/32".parse().unwrap()))
    );
    assert_eq!("localhost".parse(), Ok(Rule::Host("localhost".into())));
}

#[test]
fn a_refusal_says_which_address_and_which_setting_would_allow_it() {
    let text = Policy::default()
        .check("orders.internal", ip("10.0.0.5"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "orders.internal resolves to 10.0.0.5, which is a private address and may not be reached; \
         HOOKSTREAM_EGRESS_ALLOW=10.0.0.5/32 or HOOKSTREAM_EGRESS_ALLOW=orders.internal would allow it"
    );
    let text = Policy::default()
        .check("[::1]", ip("::1"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "::1 is a loopback address, which deliveries may not reach; HOOKSTREAM_EGRESS_ALLOW=::1/128 would allow it"
    );
}

#[test]
fn a_developers_machine_reaches_its_own_networks_but_no_metadata_service() {
    let policy = Policy::with_private_networks();
    for text in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.5", "fd12::1"] {
        assert_eq!(policy.check("x", ip(text)), Ok(()), "{text}");
    }
    for text in [
        "169.254.169.254",
        "0.0.0.0",
        "64:ff9b::169.254.169.254",
        "fd00:ec2::254",
    ] {
        assert!(policy.check("x", ip(text)).is_err(), "{text}");
    }
}

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn what_is_denied_is_not_reached_whatever_else_is_written() {
    let policy = Policy {
        allow: rules(&["10.0.0.0/8"]),
        deny: rules(&[
            "10.1.0.0/16",
            "8.8.8.0/24",
            "*.evil.example",
            "2606:4700::/32",
        ]),
        ..Policy::default()
    };
    for (host, address, rule) in [
        ("x", "10.1.2.3", "10.1.0.0/16"),
        ("x", "8.8.8.8", "8.8.8.0/24"),
        ("x", "::ffff:8.8.8.8", "8.8.8.0/24"),
        ("x", "64:ff9b::8.8.8.8", "8.8.8.0/24"),
        ("x", "2002:808:808::1", "8.8.8.0/24"),
        ("x", "2606:4700::1111", "2606:4700::/32"),
        ("A.EVIL.example.", "1.1.1.1", "*.evil.example"),
    ] {
        let blocked = policy.check(host, ip(address)).unwrap_err();
        assert_eq!(blocked.rule(), "denied");
        assert!(
            blocked.to_string().ends_with(&format!("denies {rule}")),
            "{blocked}"
        );
    }
    assert_eq!(policy.check("x", ip("10.2.0.1")), Ok(()));
    assert_eq!(policy.check("evil.example", ip("1.1.1.1")), Ok(()));
}

#[test]
fn where_only_some_may_be_reached_nothing_else_is_and_private_ones_still_need_allow() {
    let policy = Policy {
        only: Some(rules(&["*.partner.example", "1.1.1.0/24", "10.0.0.0/8"])),
        ..Policy::default()
    };
    assert_eq!(policy.check("api.partner.example", ip("8.8.8.8")), Ok(()));
    assert_eq!(policy.check("x", ip("1.1.1.1")), Ok(()));
    for (host, address, rule) in [
        ("x", "8.8.8.8", "not_listed"),
        ("api.partner.example", "10.0.0.1", "private"),
        ("api.partner.example", "169.254.169.254", "metadata"),
        ("x", "10.0.0.1", "private"),
        ("x", "64:ff9b::1.1.1.1", "not_listed"),
    ] {
        assert_eq!(
            policy.check(host, ip(address)).unwrap_err().rule(),
            rule,
            "{host} {address}"
        );
    }
    let none = Policy {
        only: Some(Vec::new()),
        ..Policy::default()
    };
    assert!(none.check("x", ip("1.1.1.1")).is_err());
}

#[test]
fn ports_and_https_are_asked_for_before_anything_is_looked_up() {
    let policy = Policy {
        ports: vec![443, 8443],
        https_only: true,
        ..Policy::default()
    };
    assert_eq!(policy.check_url("x", true, 8443), Ok(()));
    let rule = |https, port| policy.check_url("x", https, port).unwrap_err().rule();
    assert_eq!((rule(true, 22), rule(false, 443)), ("port", "plain_http"));
    assert_eq!(Policy::default().check_url("x", false, 22), Ok(()));
}
