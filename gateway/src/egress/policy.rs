//! Which addresses deliveries may reach.
//!
//! A destination's URL is written by a tenant, and the gateway sits inside the cluster: without this, a webhook could
//! read the cloud's metadata service or talk to a neighbour's database. So only addresses of the public internet are
//! dialled, unless the installation's configuration admits more; and it can admit less, for all namespaces or for one.
//!
//! The check is on the address that is about to be dialled, after DNS: names that resolve to private addresses, literals
//! in every spelling that the resolver understands (decimal, octal, hex, short forms) and names that change between two
//! look-ups all end at the same question. IPv6 forms that carry an IPv4 address are judged by what they carry.
//!
//! In order: https and port, before anything is looked up; then, for each address, what is denied, what is listed where only
//! that may be reached, and what kind of address it is.

use ipnet::IpNet;
use serde::Deserialize;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The environment variable that an error names.
pub const SETTING: &str = "HOOKSTREAM_EGRESS_ALLOW";

const METADATA: &str = "a cloud metadata address";

/// A network, or a name whatever it resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Rule {
    Net(IpNet),
    /// Exactly this host name.
    Host(String),
    /// Every name below this one, written `*.svc.cluster.local`; kept with its leading dot.
    Below(String),
}

/// A rule that is none of the three forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a network (10.0.0.0/8), an address, a host name nor a pattern (*.svc.cluster.local)"
)]
pub struct InvalidRule(String);

impl FromStr for Rule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Rule, InvalidRule> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Rule::Net(net.trunc()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Rule::Net(IpNet::from(ip.to_canonical())));
        }
        let name = normal(text.strip_prefix("*.").unwrap_or(text));
        let plain = !name.is_empty()
            && !name.split('.').any(str::is_empty)
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            // `10.0.0` or `0x7f000001` would look like a name and mean an address.
            && name.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
        match plain {
            true if text.starts_with("*.") => Ok(Rule::Below(format!(".{name}"))),
            true => Ok(Rule::Host(name)),
            false => Err(InvalidRule(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = InvalidRule;

    fn try_from(text: String) -> Result<Rule, InvalidRule> {
        text.parse()
    }
}

/// As it may be written.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Net(net) => net.fmt(f),
            Rule::Host(name) => name.fmt(f),
            Rule::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl Rule {
    /// Whether this is about the address or the name. `carried` is the IPv4 address within an IPv6 one.
    fn covers(&self, host: &str, ip: IpAddr, carried: Option<Ipv4Addr>) -> bool {
        match self {
            Rule::Net(net) => {
                net.contains(&ip) || carried.is_some_and(|ip| net.contains(&IpAddr::V4(ip)))
            }
            Rule::Host(name) => host == name,
            Rule::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    /// Whether this is about where a connection goes, without judging it.
    pub(super) fn names(&self, host: &str, ip: IpAddr) -> bool {
        self.covers(&normal(host), ip.to_canonical(), None)
    }

    fn admits(&self, host: &str, ip: IpAddr, class: &str) -> bool {
        match self {
            // Who opens a network or a name doesn't think of the metadata service in it: that one must be named.
            Rule::Net(net) if class == METADATA => *net == IpNet::from(ip),
            Rule::Host(_) | Rule::Below(_) if class == METADATA => false,
            Rule::Net(net) => net.contains(&ip),
            Rule::Host(name) => host == name,
            Rule::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// What may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Reached although they are not of the public internet.
    pub allow: Vec<Rule>,
    /// Never reached. Wins over everything.
    pub deny: Vec<Rule>,
    /// If written: nothing else is reached. It opens no private address; `allow` does.
    pub only: Option<Vec<Rule>>,
    /// If any are written: no other port is reached.
    pub ports: Vec<u16>,
    pub https_only: bool,
}

/// What may not be dialled, and what would admit it. This text is kept with the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Blocked {
    pub host: String,
    pub why: Why,
}

/// By which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Not an address of the public internet, but one of this kind.
    Class {
        ip: IpAddr,
        class: &'static str,
    },
    Denied {
        ip: IpAddr,
        rule: String,
    },
    NotListed {
        ip: IpAddr,
    },
    Port(u16),
    PlainHttp,
}

impl Blocked {
    /// The label that it is counted by.
    pub fn rule(&self) -> &'static str {
        match &self.why {
            Why::Class { class, .. } if *class == METADATA => "metadata",
            Why::Class { .. } => "private",
            Why::Denied { .. } => "denied",
            Why::NotListed { .. } => "not_listed",
            Why::Port(_) => "port",
            Why::PlainHttp => "plain_http",
        }
    }
}

/// Every label of [`Blocked::rule`].
pub(super) const RULES: [&str; 6] = [
    "metadata",
    "private",
    "denied",
    "not_listed",
    "port",
    "plain_http",
];

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Blocked { host, why } = self;
        let (ip, class) = match why {
            Why::Class { ip, class } => (ip, *class),
            Why::Denied { ip, rule } => {
                return write!(
                    f,
                    "{host} ({ip}) may not be reached: the egress policy denies {rule}"
                );
            }
            Why::NotListed { ip } => {
                return write!(
                    f,
                    "{host} ({ip}) may not be reached: it is none of what the egress policy lists in `only`"
                );
            }
            Why::Port(port) => {
                return write!(
                    f,
                    "port {port} of {host} may not be reached: the egress policy's `ports` don't list it"
                );
            }
            Why::PlainHttp => {
                return write!(
                    f,
                    "{host} may be reached by https only, says the egress policy"
                );
            }
        };
        let net = IpNet::from(*ip);
        if host.parse::<IpAddr>().is_ok() || class == METADATA {
            write!(
                f,
                "{ip} is {class}, which deliveries may not reach; {SETTING}={net} would allow it"
            )
        } else {
            write!(
                f,
                "{host} resolves to {ip}, which is {class} and may not be reached; {SETTING}={net} or {SETTING}={host} would allow it"
            )
        }
    }
}

impl Policy {
    /// Private networks of a developer's machine admitted (loopback, RFC 1918, unique local); metadata services and the
    /// rest stay refused. For `hookstream dev` and tests.
    pub fn with_private_networks() -> Policy {
        let nets = [
            "127.0.0.0/8",
            "::1/128",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
        ];
        Policy {
            allow: nets
                .iter()
                .map(|net| net.parse().expect("a network written above"))
                .collect(),
            ..Policy::default()
        }
    }

    /// Everything, a pod's metadata services too: that is where it gets its identity.
    pub(super) fn unrestricted() -> Policy {
        let nets = [
            "0.0.0.0/0",
            "::/0",
            "169.254.169.254/32",
            "169.254.169.253/32",
            "169.254.169.123/32",
            "169.254.170.2/32",
            "169.254.170.23/32",
            "168.63.129.16/32",
            "fd00:ec2::254/128",
        ];
        Policy {
            allow: nets
                .iter()
                .map(|net| net.parse().expect("a network written above"))
                .collect(),
            ..Policy::default()
        }
    }

    /// May such a URL be reached, wherever its host is? Asked before anything is looked up.
    pub fn check_url(&self, host: &str, https: bool, port: u16) -> Result<(), Blocked> {
        let why = if self.https_only && !https {
            Why::PlainHttp
        } else if !self.ports.is_empty() && !self.ports.contains(&port) {
            Why::Port(port)
        } else {
            return Ok(());
        };
        Err(Blocked {
            host: normal(host),
            why,
        })
    }

    /// May `ip`, which `host` named or resolved to, be dialled?
    pub fn check(&self, host: &str, ip: IpAddr) -> Result<(), Blocked> {
        let ip = ip.to_canonical();
        let class = refused(ip);
        if class.is_none() && self.deny.is_empty() && self.only.is_none() {
            return Ok(());
        }
        let host = normal(host);
        let blocked = |host, why| Err(Blocked { host, why });
        let carried = carried(ip);
        if let Some(rule) = self
            .deny
            .iter()
            .find(|rule| rule.covers(&host, ip, carried))
        {
            let rule = rule.to_string();
            return blocked(host, Why::Denied { ip, rule });
        }
        if let Some(only) = &self.only
            && !only.iter().any(|rule| rule.covers(&host, ip, None))
        {
            return blocked(host, Why::NotListed { ip });
        }
        match class {
            Some(class) if !self.allow.iter().any(|rule| rule.admits(&host, ip, class)) => {
                blocked(host, Why::Class { ip, class })
            }
            _ => Ok(()),
        }
    }
}

/// Lower case, no brackets, no trailing dot: `LOCALHOST.` is `localhost`.
fn normal(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Why an address is not one of the public internet; `None` if it is. `ip` is canonical (IPv4-mapped undone).
fn refused(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => refused_v4(ip),
        IpAddr::V6(ip) => refused_v6(ip),
    }
}

fn refused_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = ip.octets();
    Some(match (a, b, c, d) {
        (0, ..) => "unspecified (0.0.0.0/8)",
        (127, ..) => "a loopback address",
        // Azure's wire server is the one metadata service behind an address that looks public.
        (169, 254, 169, 254 | 253 | 123) | (169, 254, 170, 2 | 23) | (168, 63, 129, 16) => METADATA,
        (169, 254, ..) => "a link-local address",
        (10, ..) | (172, 16..=31, ..) | (192, 168, ..) => "a private address",
        (100, 64..=127, ..) => "a shared address (carrier-grade NAT)",
        (192, 0, 0, _) | (192, 88, 99, _) => "a protocol assignment address",
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) => "a documentation address",
        (198, 18 | 19, ..) => "a benchmarking address",
        (224..=239, ..) => "a multicast address",
        (255, 255, 255, 255) => "the broadcast address",
        (240..=255, ..) => "a reserved address",
        _ => return None,
    })
}

fn refused_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified (::)",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        // Never routed, and some stacks unpack it.
        [0, 0, 0, 0, 0, 0, ..] => "an IPv4-compatible address",
        [0, 0, 0, 0, 0xffff, 0, high, low] => return refused_v4(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return refused_v4(v4(high, low)),
        // RFC 8215: for a site's own translators, with the IPv4 address wherever the site likes.
        [0x64, 0xff9b, 1, ..] => "a local NAT64 address",
        [0x100, 0, 0, 0, ..] => "a discard address",
        [0x2001, 0, ..] => "a Teredo address",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "a documentation address",
        [0x2001, 1..=0x1ff, ..] => "a protocol assignment address",
        [0x2002, high, low, ..] => return refused_v4(v4(high, low)),
        [0x5f00, ..] => "a segment routing address",
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => METADATA,
        [0xfc00..=0xfdff, ..] => "a unique local address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        // ISATAP: a public prefix whose last 64 bits carry an IPv4 address.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => return refused_v4(v4(high, low)),
        _ => return None,
    })
}

/// The IPv4 address that a translation carries, where it is at a known place.
fn carried(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else {
        return None;
    };
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
