//! The command line. Every help line says the default and the unit.

#[cfg(feature = "dev")]
use crate::operate;
use clap::{Args, Parser, Subcommand};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

#[derive(Debug, Parser)]
#[command(
    name = "hookstream",
    version,
    about = "A webhook gateway: run it on your machine, check its manifests, try an event.",
    max_term_width = 110
)]
pub struct Command {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the whole of hookstream here, on a folder of manifests
    #[cfg(feature = "dev")]
    Dev(Dev),
    /// Check manifests as the operator would: exit 0 when clean, 1 with findings
    Lint(Lint),
    /// Send one event through verification, filters and transforms, without a server
    Test(Trial),
    /// Dead letters: list them, look at each attempt of one, send them again
    #[cfg(feature = "dev")]
    #[command(subcommand)]
    Deliveries(operate::args::Deliveries),
    /// Send an event again where it became a dead letter
    #[cfg(feature = "dev")]
    #[command(subcommand)]
    Events(operate::args::Event),
    /// Send many dead letters again in the background: at a rate, to be stopped and resumed
    #[cfg(feature = "dev")]
    #[command(subcommand)]
    Jobs(operate::args::Jobs),
}

#[derive(Clone, Args)]
pub struct Dev {
    /// Manifests, or folders of them, watched for changes [default: this folder]
    #[arg(
        value_name = "FOLDER|FILE",
        default_value = ".",
        hide_default_value = true
    )]
    pub paths: Vec<PathBuf>,

    /// Where senders post to [default: 127.0.0.1:8080]
    #[arg(
        long,
        env = "HOOKSTREAM_LISTEN",
        default_value = "127.0.0.1:8080",
        hide_default_value = true
    )]
    pub listen: SocketAddr,

    /// Where `/livez`, `/readyz` and `/metrics` answer [default: 127.0.0.1:9090]
    #[arg(
        long,
        env = "HOOKSTREAM_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090",
        hide_default_value = true
    )]
    pub admin_listen: SocketAddr,

    /// Where events and the key ring are kept [default: hookstream/dev-… in your data folder, one for each set of paths]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data_dir: Option<PathBuf>,

    /// Keep nothing: the data folder goes when this ends [default: kept]
    #[arg(long)]
    pub ephemeral: bool,

    /// A Postgres of yours, as `postgres://user:password@host:5432/database` [default: a private one is started]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File with the key ring that seals secrets in the database: lines of `id:base64` [default: made in the data folder]
    #[arg(long, env = "HOOKSTREAM_KEYRING", hide_env_values = true)]
    pub keyring: Option<PathBuf>,

    /// What senders put before `/v1/ingest/…` [default: http:// and the listening address]
    #[arg(long, env = "HOOKSTREAM_PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Private addresses that deliveries may go to: CIDRs and host patterns, by commas [default: all but metadata services, in dev only]
    #[arg(long, env = "HOOKSTREAM_EGRESS_ALLOW", value_delimiter = ',')]
    pub egress_allow: Option<Vec<String>>,

    /// YAML file with the egress policy, for all namespaces and for single ones; docs/egress.md [default: none]
    #[arg(long, env = "HOOKSTREAM_EGRESS_POLICY")]
    pub egress_policy: Option<PathBuf>,

    /// Proxies whose `X-Forwarded-For` is believed: CIDRs, by commas [default: none]
    #[arg(long, env = "HOOKSTREAM_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<ipnet::IpNet>,

    /// What is logged on stderr beside the lines for events, as `tracing`'s filter [default: warn]
    #[arg(
        long = "log",
        env = "HOOKSTREAM_LOG",
        default_value = "warn",
        hide_default_value = true,
        hide_env_values = true
    )]
    pub log: String,

    /// Log lines for people or for machines [default: text on a terminal, else json]
    #[arg(
        long = "log-format",
        env = "HOOKSTREAM_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: Option<service::args::LogFormat>,
}

impl std::fmt::Debug for Dev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The database's URL holds its password.
        f.debug_struct("Dev")
            .field("paths", &self.paths)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Args)]
pub struct Lint {
    /// Manifest, or folder of them; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FOLDER", required = true)]
    pub paths: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct Trial {
    /// Manifest, or folder of them; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FOLDER", required = true)]
    pub paths: Vec<PathBuf>,

    /// The Source that receives the event: its name, or namespace/name [default: none; it or --topic is needed]
    #[arg(long, value_name = "NAME", required_unless_present = "topic")]
    pub source: Option<String>,

    /// The Topic that the event is published to, in place of a Source: its name, or namespace/name [default: none]
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    pub topic: Option<String>,

    /// The file is a batch, as the topic's `/publish/batch` takes it [default: it is one event]
    #[arg(long, conflicts_with = "source")]
    pub batch: bool,

    /// File with the event's body; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub event: PathBuf,

    /// A header of the request, as 'Name: value'; may be given several times
    #[arg(long = "header", short = 'H', value_name = "K: V", value_parser = header)]
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,

    /// The request's method, to a source [default: POST]
    #[arg(long, default_value = "POST", hide_default_value = true)]
    pub method: http::Method,

    /// What follows the source's key in the URL, with its query: /a/b?c=d; to a topic the query alone: ?postIn=2h [default: empty]
    #[arg(long, default_value = "", hide_default_value = true, value_parser = path)]
    pub path: String,

    /// The address that sends it [default: 127.0.0.1]
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        hide_default_value = true
    )]
    pub from: IpAddr,
}

fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name
        .trim()
        .parse()
        .map_err(|_| format!("{:?} is not a header's name", name.trim()))?;
    let value = http::HeaderValue::from_bytes(value.trim().as_bytes())
        .map_err(|_| "the value holds a character that no header may have")?;
    Ok((name, value))
}

fn path(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') || text.starts_with('?') {
        Ok(text.to_owned())
    } else {
        Err("begin it with / or ?".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Command::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_line_of_help_and_optional_ones_say_their_default() {
        check(&Command::command());
    }

    fn check(command: &clap::Command) {
        for arg in command
            .get_arguments()
            .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
        {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let many = help.contains("several times");
            assert!(
                (arg.is_required_set() && !help.is_empty()) || many || help.contains("[default: "),
                "{} {}: {help:?}",
                command.get_name(),
                arg.get_id()
            );
        }
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            check(verb);
        }
    }

    #[test]
    fn a_header_needs_a_colon_and_a_name() {
        assert_eq!(header("X-A:  b").expect("a header").1, "b");
        for text in ["x-a", ": b", "x a: b", "x-a: \u{1}"] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }
}
