//! What CEL checks beyond types and ranges: the API server judges these before anything is stored.
//!
//! One table, so that a test can ask for an example of each. A message says what to do.

use crate::Kind;

/// A rule on the value at `path` of a kind; `[]` steps into a list's items.
#[derive(Debug, Clone)]
pub struct Rule {
    pub kind: Kind,
    pub path: &'static str,
    /// The CEL expression; `self` is the value.
    pub expression: String,
    pub message: String,
}

/// All rules of all kinds.
pub(crate) fn all() -> Vec<Rule> {
    let mut rules = Vec::new();
    for kind in Kind::ALL {
        rules.push(rule(
            kind,
            "",
            "self.metadata.name.size() <= 63",
            "metadata.name is part of URLs and labels: use at most 63 characters",
        ));
    }
    sources(&mut rules);
    destinations(&mut rules);
    for (kind, path) in [
        (Kind::Destination, "spec.retry"),
        (Kind::Connection, "spec.retry"),
        (Kind::Subscription, "spec.retry"),
    ] {
        rules.push(rule(
            kind,
            path,
            "!has(self.backoff) || self.backoff == 'Exponential' || !has(self.intervals) || self.intervals.size() == 1",
            "Linear and Fixed use one interval: list exactly one in intervals",
        ));
    }
    for (kind, path) in [
        (Kind::Connection, "spec.filter"),
        (Kind::Subscription, "spec.filter"),
        (Kind::Collection, "spec.filter"),
    ] {
        rules.push(rule(
            kind,
            path,
            "(has(self.all) && self.all.size() > 0) || (has(self.any) && self.any.size() > 0) || (has(self.none) && self.none.size() > 0) || has(self.expression)",
            "a filter without rules lets everything pass: give all, any or none a rule, write an expression, or leave filter out",
        ));
    }
    rules.push(exactly_one(
        Kind::AlertRule,
        "spec",
        &[
            "failureRate",
            "latency",
            "volumeDrop",
            "deadLetters",
            "issueOpened",
        ],
    ));
    rules.push(exactly_one(
        Kind::NotificationChannel,
        "spec",
        &["webhook", "slack", "discord", "email"],
    ));
    rules
}

fn sources(rules: &mut Vec<Rule>) {
    let kind = Kind::Source;
    rules.push(rule(
        kind,
        "spec",
        "!has(self.path) || !self.path.startsWith('src_')",
        "path: `src_` begins the URLs by id: choose another beginning",
    ));
    let ways = "[has(self.hmac), has(self.standardWebhooks), has(self.ed25519), has(self.ecdsa), has(self.basicAuth), has(self.apiKey), has(self.jwt)].filter(x, x).size()";
    rules.push(rule(
        kind,
        "spec.verification",
        &format!("{ways} == 1 || (has(self.template) && {ways} == 0)"),
        "verification: set a template or exactly one of hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey, jwt, or a template and one of these",
    ));
    for way in ["hmac", "ed25519", "ecdsa"] {
        rules.push(rule(
            kind,
            "spec.verification",
            &format!("!has(self.{way}) || has(self.{way}.header) || (has(self.template) && self.template != 'custom')"),
            &format!("{way}: say in header where the signature is"),
        ));
        rules.push(rule(
            kind,
            "spec.verification",
            &format!("!has(self.{way}) || !has(self.{way}.timestamp) || has(self.{way}.timestamp.header) || (has(self.template) && self.template != 'custom')"),
            &format!("{way}: say in timestamp.header where the time is"),
        ));
    }
    rules.push(rule(
        kind,
        "spec.verification",
        "(has(self.jwt) && has(self.jwt.jwksUrl)) || (has(self.secretRefs) && self.secretRefs.size() > 0)",
        "verification needs a secret: name at least one in secretRefs",
    ));
    for (way, path) in [
        ("hmac", "spec.verification.hmac"),
        ("ed25519", "spec.verification.ed25519"),
        ("ecdsa", "spec.verification.ecdsa"),
    ] {
        rules.push(rule(
            kind,
            path,
            "!has(self.signedContent) || self.signedContent.contains('{body}') || self.signedContent.contains('{form}')",
            &format!("{way}: signedContent without the body protects nothing: write {{body}} where the body stands"),
        ));
        rules.push(rule(
            kind,
            path,
            "!has(self.signedContent) || !self.signedContent.contains('{timestamp}') || has(self.timestamp)",
            &format!("{way}: signedContent has {{timestamp}}: say in timestamp.header where it is"),
        ));
    }
    rules.push(rule(
        kind,
        "spec.verification.hmac",
        "!has(self.signedContent) || !self.signedContent.contains('{id}') || has(self.idHeader)",
        "hmac: signedContent has {id}: say in idHeader where it is",
    ));
    rules.push(exactly_one(
        kind,
        "spec.verification.apiKey",
        &["header", "query"],
    ));
    rules.push(rule(
        kind,
        "spec.dedup",
        "self.strategy == 'PayloadHash' ? !has(self.field) : has(self.field)",
        "dedup.field: HeaderField and BodyField need one, PayloadHash has none",
    ));
    for kind in [Kind::Source, Kind::Destination] {
        rules.push(rule(
            kind,
            "spec.allowedNamespaces",
            "(has(self.from) && self.from == 'Selector') == has(self.selector)",
            "allowedNamespaces.selector goes with from: Selector, and only with it",
        ));
    }
    rules.push(rule(
        kind,
        "spec.ipFilter",
        "(has(self.allow) && self.allow.size() > 0) || (has(self.deny) && self.deny.size() > 0)",
        "ipFilter without addresses filters nothing: list some in allow or deny, or leave ipFilter out",
    ));
}

fn destinations(rules: &mut Vec<Rule>) {
    let kind = Kind::Destination;
    rules.push(exactly_one(
        kind,
        "spec",
        &[
            "http",
            "sqs",
            "s3",
            "eventbridge",
            "pubsub",
            "kafka",
            "rabbitmq",
            "websocket",
        ],
    ));
    rules.push(rule(
        kind,
        "spec",
        "!has(self.signing) || has(self.http)",
        "signing: only http destinations sign: leave it out",
    ));
    rules.push(exactly_one(
        kind,
        "spec.signing",
        &["standardWebhooks", "hmac", "httpSignature"],
    ));
    rules.push(exactly_one(
        kind,
        "spec.http.auth",
        &["basic", "bearer", "apiKey", "oauth2", "awsSigV4"],
    ));
    rules.push(exactly_one(kind, "spec.kafka", &["native", "restProxy"]));
    rules.push(exactly_one(kind, "spec.rabbitmq", &["amqp", "management"]));
    rules.push(rule(
        kind,
        "spec.circuitBreaker",
        "!(has(self.failures) && has(self.failureRate))",
        "circuitBreaker: set failures or failureRate, not both",
    ));
    rules.push(rule(
        kind,
        "spec.ordering",
        "self.mode == 'Strict' || (!has(self.key) && !has(self.onHeadBlocked))",
        "ordering: key and onHeadBlocked need mode: Strict",
    ));
    rules.push(rule(
        kind,
        "spec.sqs",
        "!(has(self.delaySeconds) && self.queueUrl.endsWith('.fifo'))",
        "sqs.delaySeconds: a FIFO queue has no delay per message: leave it out",
    ));
    rules.push(rule(
        kind,
        "spec.sqs",
        "!self.queueUrl.endsWith('.fifo') || has(self.groupId)",
        "sqs.groupId: a FIFO queue needs one: say where in the event it is, as body.order.id",
    ));
}

fn exactly_one(kind: Kind, path: &'static str, members: &[&str]) -> Rule {
    let set = members
        .iter()
        .map(|member| format!("has(self.{member})"))
        .collect::<Vec<_>>()
        .join(", ");
    let place = path
        .strip_prefix("spec.")
        .map_or(String::new(), |place| format!("{place}: "));
    Rule {
        kind,
        path,
        expression: format!("[{set}].filter(x, x).size() == 1"),
        message: format!("{place}set exactly one of {}", members.join(", ")),
    }
}

fn rule(kind: Kind, path: &'static str, expression: &str, message: &str) -> Rule {
    Rule {
        kind,
        path,
        expression: expression.to_owned(),
        message: message.to_owned(),
    }
}
