//! The installation's egress policy as a file: what holds for every namespace, and for which namespace something else does.
//!
//! Only who installs hookstream writes it. No resource can widen it, as none is read here.

use super::policy::{Policy, Rule};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// The policy of each namespace.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    pub default: Policy,
    pub namespaces: BTreeMap<String, Policy>,
}

/// What keeps a file from being used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("can't be read")]
    Read(#[source] std::io::Error),
    #[error("is not YAML")]
    Yaml(#[source] serde_yaml::Error),
    #[error("is no egress policy: {0}")]
    Shape(serde_json::Error),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct File {
    default: Written,
    namespaces: BTreeMap<String, Written>,
}

/// A namespace has the default's value for what it doesn't write.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    allow: Option<Vec<Rule>>,
    deny: Option<Vec<Rule>>,
    only: Option<Vec<Rule>>,
    ports: Option<Vec<u16>>,
    https_only: Option<bool>,
}

impl Written {
    fn over(self, base: &Policy) -> Policy {
        Policy {
            allow: self.allow.unwrap_or_else(|| base.allow.clone()),
            deny: self.deny.unwrap_or_else(|| base.deny.clone()),
            only: self.only.or_else(|| base.only.clone()),
            ports: self.ports.unwrap_or_else(|| base.ports.clone()),
            https_only: self.https_only.unwrap_or(base.https_only),
        }
    }
}

impl Policies {
    /// The same for every namespace.
    pub fn same(default: Policy) -> Policies {
        Policies {
            default,
            namespaces: BTreeMap::new(),
        }
    }

    pub fn read(path: &Path, allow: &[Rule]) -> Result<Policies, InvalidPolicy> {
        let text = std::fs::read_to_string(path).map_err(InvalidPolicy::Read)?;
        Policies::parse(&text, allow)
    }

    /// `allow` are the rules of the flag, which join those of the default.
    pub fn parse(text: &str, allow: &[Rule]) -> Result<Policies, InvalidPolicy> {
        // By way of JSON: the YAML library wants tags where a type has variants.
        let value: serde_json::Value = serde_yaml::from_str(text).map_err(InvalidPolicy::Yaml)?;
        let file = match value {
            serde_json::Value::Null => File::default(),
            value => serde_json::from_value(value).map_err(InvalidPolicy::Shape)?,
        };
        let mut default = file.default.over(&Policy::default());
        default.allow.extend_from_slice(allow);
        let namespaces = file
            .namespaces
            .into_iter()
            .map(|(name, written)| (name, written.over(&default)))
            .collect();
        Ok(Policies {
            default,
            namespaces,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_the_defaults_for_what_it_does_not_write() {
        let policies = Policies::parse(
            "
default:
  deny: [203.0.113.0/24]
  ports: [443]
  httpsOnly: true
namespaces:
  shop: {ports: [443, 8443]}
  bank: {only: ['*.bank.example'], allow: []}
  open: {deny: [], ports: [], httpsOnly: false}
",
            &["10.0.0.0/8".parse().unwrap()],
        )
        .unwrap();
        let shop = &policies.namespaces["shop"];
        assert_eq!(
            (shop.ports.as_slice(), shop.https_only),
            (&[443, 8443][..], true)
        );
        assert_eq!(
            (&shop.deny, &shop.allow),
            (&policies.default.deny, &policies.default.allow)
        );
        assert_eq!(
            shop.allow.len(),
            1,
            "the flag's rule is one of the default's"
        );
        let bank = &policies.namespaces["bank"];
        assert!(bank.allow.is_empty() && bank.only.as_ref().is_some_and(|only| only.len() == 1));
        assert_eq!(
            policies.namespaces["open"],
            Policy {
                allow: shop.allow.clone(),
                ..Policy::default()
            }
        );
    }

    #[test]
    fn a_mistake_in_the_file_is_named() {
        for (text, says) in [
            ("default: {alow: []}", "alow"),
            ("defaults: {}", "defaults"),
            ("default: {deny: ['10.0.0.0/33']}", "10.0.0.0/33"),
            ("default: {ports: [70000]}", "70000"),
            ("namespaces: {shop: {httpsOnly: maybe}}", "maybe"),
            ("- a", "egress policy"),
            ("{", "YAML"),
        ] {
            let error = Policies::parse(text, &[]).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert_eq!(Policies::parse("", &[]).unwrap().default, Policy::default());
    }
}
