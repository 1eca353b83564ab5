//! The flags that operator, gateway and `hookstream dev` have in common. Each has an environment variable.

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct Log {
    /// What is logged, as `tracing`'s filter: `info`, `warn,gateway=debug` [default: info]
    #[arg(
        long = "log",
        env = "HOOKSTREAM_LOG",
        default_value = "info",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub filter: String,

    /// Log lines for people or for machines [default: text on a terminal, else json]
    #[arg(
        long = "log-format",
        env = "HOOKSTREAM_LOG_FORMAT",
        hide_env_values = true
    )]
    pub format: Option<LogFormat>,
}

/// Of the processes that work on Postgres: operator and gateway.
#[derive(Clone, Args)]
pub struct Common {
    /// Postgres, as `postgres://user:password@host:5432/database?sslmode=verify-full` [no default]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Direct Postgres URL for LISTEN, needed when `--database-url` goes through a transaction pooler [default: the same URL]
    #[arg(long, env = "HOOKSTREAM_LISTEN_URL", hide_env_values = true)]
    pub listen_url: Option<String>,

    /// File with the key ring that seals secrets in the routing table: lines of `id:base64`, the first one seals [no default]
    #[arg(long, env = "HOOKSTREAM_KEYRING", hide_env_values = true)]
    pub keyring: PathBuf,

    /// What senders put before `/v1/ingest/…` [default: http://localhost:8080]
    #[arg(
        long,
        env = "HOOKSTREAM_PUBLIC_URL",
        default_value = "http://localhost:8080",
        hide_default_value = true
    )]
    pub public_url: String,

    /// Where `/livez`, `/readyz` and `/metrics` answer [default: 0.0.0.0:9090]
    #[arg(
        long,
        env = "HOOKSTREAM_ADMIN_LISTEN",
        default_value = "0.0.0.0:9090",
        hide_default_value = true
    )]
    pub admin_listen: SocketAddr,

    #[command(flatten)]
    pub log: Log,
}

/// Of the processes that meet senders and destinations: gateway and `dev`.
#[derive(Debug, Clone, Args)]
pub struct Network {
    /// Private addresses that deliveries may go to: CIDRs and host patterns such as `10.0.0.0/8,*.svc.cluster.local`, by commas [default: none]
    #[arg(long, env = "HOOKSTREAM_EGRESS_ALLOW", value_delimiter = ',')]
    pub egress_allow: Vec<String>,

    /// Proxies whose `X-Forwarded-For` or `Forwarded` is believed: CIDRs, by commas [default: none]
    #[arg(long, env = "HOOKSTREAM_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The database's URLs hold its password.
        f.debug_struct("Common")
            .field("keyring", &self.keyring)
            .field("public_url", &self.public_url)
            .field("admin_listen", &self.admin_listen)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}
