//! The gateway's flags. Each has an environment variable and a line of help with its default and unit.

use clap::{Args as ClapArgs, Parser, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Accepts webhooks, records them in Postgres and delivers them.
#[derive(Debug, Clone, Parser)]
#[command(name = "hookstream-gateway", version)]
pub struct Args {
    #[command(flatten)]
    pub common: service::args::Common,

    #[command(flatten)]
    pub network: service::args::Network,

    #[command(flatten)]
    pub egress: Egress,

    /// What this process does, by commas: ingest, delivery, api [default: all of them]
    #[arg(
        long,
        env = "HOOKSTREAM_ROLES",
        value_delimiter = ',',
        default_value = "ingest,delivery,api",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub roles: Vec<Role>,

    /// Where senders reach `/v1/ingest/…` [default: 0.0.0.0:8080]
    #[arg(
        long,
        env = "HOOKSTREAM_LISTEN",
        default_value = "0.0.0.0:8080",
        hide_default_value = true
    )]
    pub listen: SocketAddr,

    /// Connections from `--trusted-proxies` begin with a PROXY protocol head, version 1 or 2, and without one they are closed [default: false]
    #[arg(long, env = "HOOKSTREAM_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// This process among the replicas; must differ between them [default: the host's name]
    #[arg(long, env = "HOOKSTREAM_REPLICA")]
    pub replica: Option<String>,

    /// Most connections to Postgres, besides one that listens [default: 8]
    #[arg(long, env = "HOOKSTREAM_DATABASE_CONNECTIONS", default_value_t = 8, hide_default_value = true, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,

    /// Shards that a database gets when the first process lays it out; later values are ignored [default: 64]
    #[arg(long, env = "HOOKSTREAM_SHARDS", default_value_t = 64, hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,

    /// How long history is kept, in days (UTC) [default: 30d]
    #[arg(long, env = "HOOKSTREAM_RETENTION", default_value = "30d", hide_default_value = true, value_parser = duration)]
    pub retention: Duration,

    /// How long a crashed replica's shards stay without an owner, as `10s` [default: 10s]
    #[arg(long, env = "HOOKSTREAM_LEASE_TTL", default_value = "10s", hide_default_value = true, value_parser = duration)]
    pub lease_ttl: Duration,

    /// How long attempts in flight may take to finish after SIGTERM, as `20s` [default: 20s]
    #[arg(long, env = "HOOKSTREAM_GRACE", default_value = "20s", hide_default_value = true, value_parser = duration)]
    pub grace: Duration,

    /// Most attempts in flight, over all destinations; one with a body of more than 16 KiB counts as several. A namespace may have half of them, a destination half of that [default: 4096]
    #[arg(long, env = "HOOKSTREAM_ATTEMPTS", default_value_t = 4096, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub attempts: u32,

    #[command(flatten)]
    pub objects: Objects,

    #[command(flatten)]
    pub limits: Limits,
}

/// Where large bodies are kept.
#[derive(Debug, Clone, ClapArgs)]
pub struct Objects {
    /// Object store for large bodies: s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///FOLDER; credentials by the store's usual variables; docs/large-payloads.md [default: none, all bodies are in Postgres]
    #[arg(long, env = "HOOKSTREAM_OBJECT_STORE")]
    pub object_store: Option<String>,

    /// Larger bodies go to the object store, as `256Ki` [default: 256Ki]
    #[arg(long, env = "HOOKSTREAM_OBJECT_THRESHOLD", default_value = "256Ki", hide_default_value = true, value_parser = size)]
    pub object_threshold: usize,
}

/// Where deliveries may go, and by which way.
#[derive(Debug, Clone, ClapArgs)]
pub struct Egress {
    /// YAML file with the egress policy, for all namespaces and for single ones; docs/egress.md [default: none, the public internet may be reached]
    #[arg(long, env = "HOOKSTREAM_EGRESS_POLICY")]
    pub egress_policy: Option<PathBuf>,

    /// Proxy that deliveries go through by CONNECT, as `http://user:password@proxy:3128` [default: none]
    #[arg(long, env = "HOOKSTREAM_EGRESS_PROXY", hide_env_values = true)]
    pub egress_proxy: Option<Hidden>,

    /// What is reached without the proxy: CIDRs and host patterns, by commas [default: none]
    #[arg(long, env = "HOOKSTREAM_EGRESS_PROXY_EXCEPT", value_delimiter = ',')]
    pub egress_proxy_except: Vec<String>,
}

/// A value that may hold a password: it is judged where it is used, so that no message of the command line repeats it.
#[derive(Clone)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    Ingest,
    Delivery,
    Api,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Ingest, Role::Delivery, Role::Api];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::Delivery => "delivery",
            Role::Api => "api",
        }
    }
}

/// The bounds of the public port. What happens at each is an answer of `errors`, never a crash or a wait without end.
#[derive(Debug, Clone, PartialEq, Eq, ClapArgs)]
pub struct Limits {
    /// Largest head of a request, request line included, as `64Ki`; beyond it 431, a target beyond half of it 414 [default: 64Ki]
    #[arg(long, env = "HOOKSTREAM_MAX_HEADER_BYTES", default_value = "64Ki", hide_default_value = true, value_parser = size)]
    pub max_header_bytes: usize,

    /// Most header lines of a request; beyond it 431 [default: 100]
    #[arg(
        long,
        env = "HOOKSTREAM_MAX_HEADERS",
        default_value_t = 100,
        hide_default_value = true
    )]
    pub max_headers: usize,

    /// How long a request's head may take from its first byte, as `10s`; then 408 [default: 10s]
    #[arg(long, env = "HOOKSTREAM_HEAD_TIMEOUT", default_value = "10s", hide_default_value = true, value_parser = duration)]
    pub head_timeout: Duration,

    /// How long a request's body may take after its head, as `30s`; then 408, and after a third of it when less than 1 KiB a second comes [default: 30s]
    #[arg(long, env = "HOOKSTREAM_BODY_TIMEOUT", default_value = "30s", hide_default_value = true, value_parser = duration)]
    pub body_timeout: Duration,

    /// How long a connection may be idle before it is closed, as `75s`; more than the load balancer's [default: 75s]
    #[arg(long, env = "HOOKSTREAM_IDLE_TIMEOUT", default_value = "75s", hide_default_value = true, value_parser = duration)]
    pub idle_timeout: Duration,

    /// Most connections; beyond it 503 [default: 4096]
    #[arg(
        long,
        env = "HOOKSTREAM_MAX_CONNECTIONS",
        default_value_t = 4096,
        hide_default_value = true
    )]
    pub max_connections: usize,

    /// Most requests in flight; beyond it 503 [default: 2048]
    #[arg(
        long,
        env = "HOOKSTREAM_MAX_REQUESTS",
        default_value_t = 2048,
        hide_default_value = true
    )]
    pub max_requests: usize,

    /// Largest body, whatever a source's `maxBodySize` says, as `25Mi`; 1Gi at most, more than 32Mi only with --object-store; beyond it 413 [default: 25Mi]
    #[arg(long, env = "HOOKSTREAM_MAX_BODY", default_value = "25Mi", hide_default_value = true, value_parser = body_size)]
    pub max_body: usize,

    /// Most bytes of heads and bodies in flight, as `64Mi`; beyond it 503 [default: 64Mi]
    #[arg(long, env = "HOOKSTREAM_MAX_BODY_BYTES_IN_FLIGHT", default_value = "64Mi", hide_default_value = true, value_parser = size)]
    pub max_body_bytes_in_flight: usize,

    /// Commits in flight at once; one is the fastest on most disks [default: 1]
    #[arg(long, env = "HOOKSTREAM_RECORDERS", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub recorders: u8,
}

impl Limits {
    /// The longest path and query. Half of a head, so that one that is too long is told so rather than as a head that is
    /// too large; never more than the HTTP library takes.
    pub fn max_target_bytes(&self) -> usize {
        (self.max_header_bytes / 2).min(65_534)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_header_bytes: 64 << 10,
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_connections: 4096,
            max_requests: 2048,
            max_body: 25 << 20,
            max_body_bytes_in_flight: 64 << 20,
            recorders: 1,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match routing::duration::parse(text) {
        Ok(duration) if duration.is_zero() => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = routing::size::parse(text).map_err(|error| error.to_string())?;
    // A semaphore counts these bytes in 32 bits at a time; 4 GiB is more than a gateway should hold anyway.
    u32::try_from(bytes)
        .map(|bytes| bytes as usize)
        .map_err(|_| "must be below 4Gi".to_owned())
}

fn body_size(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    match bytes <= 1 << 30 {
        true => Ok(bytes),
        false => Err("must be 1Gi or less".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: [&str; 5] = [
        "hookstream-gateway",
        "--database-url",
        "postgres://localhost/db",
        "--keyring",
        "/keyring",
    ];

    #[test]
    fn the_defaults_of_the_flags_are_the_defaults_of_the_library() {
        let args = Args::try_parse_from(NEEDED).unwrap();
        assert_eq!(args.limits, Limits::default());
        assert_eq!(args.roles, Role::ALL);
        assert_eq!(args.lease_ttl, Duration::from_secs(10));
    }

    #[test]
    fn every_flag_says_its_default_and_has_an_environment_variable() {
        use clap::CommandFactory;
        for argument in Args::command().get_arguments().filter(|argument| {
            argument.get_long() != Some("help") && argument.get_long() != Some("version")
        }) {
            let name = argument.get_long().unwrap_or_default();
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("default:") || help.contains("[no default]"),
                "--{name}: {help}"
            );
            assert!(argument.get_env().is_some(), "--{name}");
        }
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused() {
        for wrong in [
            ["--head-timeout", "0s"],
            ["--head-timeout", "soon"],
            ["--max-header-bytes", "8Gi"],
            ["--shards", "0"],
            ["--roles", "cook"],
            ["--recorders", "0"],
            ["--max-body", "1025Mi"],
        ] {
            assert!(
                Args::try_parse_from(NEEDED.into_iter().chain(wrong)).is_err(),
                "{wrong:?}"
            );
        }
    }
}
