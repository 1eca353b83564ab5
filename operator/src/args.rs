//! The flags of `hookstream-operator`. Each has an environment variable.

use clap::Parser;
use service::args::Common;
use std::time::Duration;

/// Watches hookstream's custom resources, compiles them, publishes the routing table and writes their statuses
#[derive(Debug, Clone, Parser)]
#[command(name = "hookstream-operator", version)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Namespaces to watch, by commas [default: all]
    #[arg(long, env = "HOOKSTREAM_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// How long nobody leads after an operator crashed, as `10s` [default: 10s]
    #[arg(long, env = "HOOKSTREAM_LEASE_TTL", default_value = "10s", hide_default_value = true, value_parser = duration)]
    pub lease_ttl: Duration,

    /// How long a gateway may be silent before it no longer counts, as `20s` [default: 20s]
    #[arg(long, env = "HOOKSTREAM_GATEWAY_TIMEOUT", default_value = "20s", hide_default_value = true, value_parser = duration)]
    pub gateway_timeout: Duration,

    /// How long a removal of more than half of the routing table, or of a kind, must stay the same before it is published, as `30s` [default: 30s]
    #[arg(long, env = "HOOKSTREAM_REMOVAL_HOLD", default_value = "30s", hide_default_value = true, value_parser = duration)]
    pub removal_hold: Duration,

    /// How often the whole published table is compared with the compiled one, as `10m` [default: 10m]
    #[arg(long, env = "HOOKSTREAM_COMPARE_EVERY", default_value = "10m", hide_default_value = true, value_parser = duration)]
    pub compare_every: Duration,

    /// Shards that a database gets when the first process lays it out; later values are ignored [default: 64]
    #[arg(long, env = "HOOKSTREAM_SHARDS", default_value_t = 64, hide_default_value = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,

    /// Name of this operator's pod, for its Events and as the lease's holder [default: the host's name]
    #[arg(long, env = "HOOKSTREAM_POD_NAME")]
    pub pod_name: Option<String>,

    /// Namespace of this operator's pod, for its Events [default: no Events about the operator itself]
    #[arg(long, env = "HOOKSTREAM_POD_NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// What the sandbox's children are started from. No flag: only a process that isn't the operator's own, as a test
    /// is, sets it.
    #[arg(skip)]
    pub sandbox: sandbox::Program,
}

/// At least a second: these are intervals between calls to a database.
fn duration(text: &str) -> Result<Duration, String> {
    match routing::duration::parse(text) {
        Ok(duration) if duration < Duration::from_secs(1) => Err("must be at least 1s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_flag_has_an_environment_variable_and_says_its_default() {
        for argument in Args::command()
            .get_arguments()
            .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        {
            assert!(
                argument.get_env().is_some(),
                "{} has no variable",
                argument.get_id()
            );
            let help = argument
                .get_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("default"),
                "{} doesn't say its default: {help}",
                argument.get_id()
            );
        }
    }
}
