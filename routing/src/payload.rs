//! The payload shapes of six services: an event in, the JSON that the service takes out.
//!
//! A body that has the service's shape already (a transform made it so) goes as it is. Of any other the service gets a line
//! for people (what happened, and which event it was) and as much of the payload as it takes. Text of a sender's is never
//! markup: it can't call a channel's members, nor link.

use crate::{
    ids::{self, Prefix},
    row::SecretIndex,
};
use http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A service by name, with what its payload needs besides the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Template {
    /// Incoming webhooks.
    Slack {},
    /// Webhooks; with a URL that ends in `/slack`, Slack's shape.
    Discord {},
    /// Events API v2: the routing key is part of the payload.
    Pagerduty { routing_key: SecretIndex },
    /// Logs, HTTP intake v2.
    Datadog {},
    /// Catch hooks.
    Zapier {},
    /// The shape of Linear's own webhooks.
    Linear {},
}

/// The names that a resource may write.
pub const NAMES: [&str; 6] = [
    "slack",
    "discord",
    "pagerduty",
    "datadog",
    "zapier",
    "linear",
];

/// Characters of a message for people. Slack cuts at 40,000 and folds much earlier.
const SLACK_TEXT: usize = 3_000;
/// Discord refuses more than 2,000.
const DISCORD_TEXT: usize = 1_900;
/// PagerDuty refuses a summary of more than 1,024.
const SUMMARY: usize = 1_000;

/// What is said of an event.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    pub event: Uuid,
    pub source: Uuid,
    pub namespace: &'a str,
    pub received_at: Timestamp,
    /// Those that are forwarded.
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

impl Template {
    /// The body to send. `routing_key` is PagerDuty's; `url` tells Discord's two shapes apart.
    pub fn shape(&self, said: Said<'_>, url: &str, routing_key: &str) -> Vec<u8> {
        let payload = match serde_json::from_slice::<Value>(said.body) {
            Ok(payload) => payload,
            Err(_) if said.body.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(said.body).into_owned()),
        };
        let has = |names: &[&str]| {
            payload
                .as_object()
                .is_some_and(|object| names.iter().any(|name| object.contains_key(*name)))
        };
        let as_slack = |payload: &Value| match has(&["text", "blocks", "attachments"]) {
            true => payload.clone(),
            false => json!({ "text": said.message(payload, SLACK_TEXT, slack_escaped) }),
        };
        let shaped = match self {
            Template::Slack {} => as_slack(&payload),
            Template::Discord {} if url.ends_with("/slack") => as_slack(&payload),
            Template::Discord {} if has(&["content", "embeds", "components"]) => payload,
            Template::Discord {} => json!({
                "content": said.message(&payload, DISCORD_TEXT, str::to_owned),
                "allowed_mentions": { "parse": [] },
            }),
            Template::Pagerduty { .. } => said.pagerduty(payload, routing_key),
            Template::Datadog {} if has(&["message"]) || payload.is_array() => payload,
            Template::Datadog {} => json!([{
                "ddsource": "hookstream",
                "service": said.namespace,
                "ddtags": format!("event_type:{},source_id:{}", tag(&said.kind(&payload)), said.source_id()),
                "message": said.title(&payload),
                "event_id": said.event_id(),
                "timestamp": said.received_at.as_millisecond(),
                "payload": payload,
            }]),
            Template::Zapier {} if payload.is_object() => payload,
            Template::Zapier {} => json!({
                "event_id": said.event_id(),
                "event_type": said.kind(&payload),
                "received_at": time(said.received_at),
                "payload": payload,
            }),
            Template::Linear {}
                if has(&["query"]) || (has(&["action"]) && has(&["type"]) && has(&["data"])) =>
            {
                payload
            }
            Template::Linear {} => json!({
                "action": "create",
                "type": said.kind(&payload),
                "createdAt": time(said.received_at),
                "webhookTimestamp": said.received_at.as_millisecond(),
                "webhookId": said.event_id(),
                "data": payload,
            }),
        };
        serde_json::to_vec(&shaped).unwrap_or_default()
    }
}

impl Said<'_> {
    fn event_id(&self) -> String {
        ids::format(Prefix::Event, self.event)
    }

    fn source_id(&self) -> String {
        ids::format(Prefix::Source, self.source)
    }

    /// What kind of event it is, as far as its sender says so.
    fn kind(&self, payload: &Value) -> String {
        const HEADERS: [&str; 7] = [
            "x-github-event",
            "x-gitlab-event",
            "x-event-key",
            "x-shopify-topic",
            "linear-event",
            "ce-type",
            "x-event-type",
        ];
        let header = HEADERS
            .iter()
            .find_map(|name| self.headers.get(*name)?.to_str().ok());
        let field = || {
            ["type", "event_type", "event", "topic", "action"]
                .iter()
                .find_map(|name| payload.get(*name)?.as_str())
        };
        let kind = header.or_else(field).unwrap_or("webhook");
        kind.chars().filter(|c| !c.is_control()).take(128).collect()
    }

    /// For people: what, and which event.
    fn title(&self, payload: &Value) -> String {
        format!(
            "{} in {} ({})",
            self.kind(payload),
            self.namespace,
            self.event_id()
        )
    }

    /// The title, and the payload as code, `most` characters in all.
    fn message(&self, payload: &Value, most: usize, escape: fn(&str) -> String) -> String {
        let title = escape(&self.title(payload));
        if payload.is_null() {
            return title;
        }
        let code = match payload {
            Value::String(text) => text.clone(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        // Three backticks of the sender's would end the code.
        let code = escape(&code.replace("```", "'''"));
        let room = most.saturating_sub(title.chars().count() + 10);
        let (code, cut) = first(&code, room);
        format!("{title}\n```\n{code}{}\n```", if cut { "…" } else { "" })
    }

    fn pagerduty(&self, payload: Value, routing_key: &str) -> Value {
        if let Value::Object(mut shaped) = payload {
            if shaped.contains_key("event_action") {
                shaped.insert("routing_key".to_owned(), routing_key.into());
                return Value::Object(shaped);
            }
            return self.pagerduty_event(Value::Object(shaped), routing_key);
        }
        self.pagerduty_event(payload, routing_key)
    }

    fn pagerduty_event(&self, payload: Value, routing_key: &str) -> Value {
        let summary = self.title(&payload);
        let kind = self.kind(&payload);
        let details = match payload {
            details @ Value::Object(_) => details,
            Value::Null => Value::Object(Map::new()),
            other => json!({ "body": other }),
        };
        json!({
            "routing_key": routing_key,
            "event_action": "trigger",
            // A retry is the same alert.
            "dedup_key": self.event_id(),
            "client": "hookstream",
            "payload": {
                "summary": first(&summary, SUMMARY).0,
                "source": self.source_id(),
                "severity": "error",
                "timestamp": time(self.received_at),
                "group": self.namespace,
                "class": kind,
                "custom_details": details,
            },
        })
    }
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// The first characters, and whether there are more.
fn first(text: &str, most: usize) -> (&str, bool) {
    match text.char_indices().nth(most) {
        Some((at, _)) => (&text[..at], true),
        None => (text, false),
    }
}

/// Slack's three characters; without them nothing is a mention or a link.
fn slack_escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Datadog's tags end at a comma.
fn tag(text: &str) -> String {
    text.replace([',', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(
        template: &Template,
        headers: &[(&'static str, &'static str)],
        body: &str,
        url: &str,
    ) -> Value {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let said = Said {
            event: Uuid::from_u128(0x0192_f3a4_b5c6_7d8e_9f00_1122_3344_5566),
            source: Uuid::from_u128(7),
            namespace: "shop",
            received_at: "2026-11-21T10:00:00.123Z".parse().unwrap(),
            headers: &map,
            body: body.as_bytes(),
        };
        serde_json::from_slice(&template.shape(said, url, "R0UT1NG")).unwrap()
    }

    const EVENT: &str = r#"{"type":"order.created","id":7}"#;

    #[test]
    fn each_service_gets_its_shape() {
        let push = [("x-github-event", "push")];
        let title = "order.created in shop (evt_0192f3a4b5c67d8e9f00112233445566)";
        let code = "```\n{\n  \"type\": \"order.created\",\n  \"id\": 7\n}\n```";
        let slack = shaped(&Template::Slack {}, &[], EVENT, "https://hooks.slack.com/x");
        assert_eq!(slack, json!({ "text": format!("{title}\n{code}") }));
        let discord = shaped(
            &Template::Discord {},
            &[],
            EVENT,
            "https://discord.com/api/webhooks/1/x",
        );
        assert_eq!(
            discord,
            json!({ "content": format!("{title}\n{code}"), "allowed_mentions": { "parse": [] } })
        );
        let by_slack = shaped(
            &Template::Discord {},
            &[],
            EVENT,
            "https://discord.com/api/webhooks/1/x/slack",
        );
        assert_eq!(by_slack, slack);
        let key = SecretIndex(0);
        assert_eq!(
            shaped(&Template::Pagerduty { routing_key: key }, &push, EVENT, ""),
            json!({
                "routing_key": "R0UT1NG", "event_action": "trigger", "client": "hookstream",
                "dedup_key": "evt_0192f3a4b5c67d8e9f00112233445566",
                "payload": {
                    "summary": "push in shop (evt_0192f3a4b5c67d8e9f00112233445566)",
                    "source": "src_00000000000000000000000000000007", "severity": "error",
                    "timestamp": "2026-11-21T10:00:00.123Z", "group": "shop", "class": "push",
                    "custom_details": { "type": "order.created", "id": 7 },
                },
            })
        );
        assert_eq!(
            shaped(&Template::Datadog {}, &push, EVENT, ""),
            json!([{
                "ddsource": "hookstream", "service": "shop",
                "ddtags": "event_type:push,source_id:src_00000000000000000000000000000007",
                "message": "push in shop (evt_0192f3a4b5c67d8e9f00112233445566)",
                "event_id": "evt_0192f3a4b5c67d8e9f00112233445566", "timestamp": 1_795_255_200_123_i64,
                "payload": { "type": "order.created", "id": 7 },
            }])
        );
        assert_eq!(
            shaped(&Template::Zapier {}, &[], "[1]", ""),
            json!({
                "event_id": "evt_0192f3a4b5c67d8e9f00112233445566", "event_type": "webhook",
                "received_at": "2026-11-21T10:00:00.123Z", "payload": [1],
            })
        );
        assert_eq!(
            shaped(&Template::Linear {}, &[], EVENT, ""),
            json!({
                "action": "create", "type": "order.created", "createdAt": "2026-11-21T10:00:00.123Z",
                "webhookTimestamp": 1_795_255_200_123_i64, "webhookId": "evt_0192f3a4b5c67d8e9f00112233445566",
                "data": { "type": "order.created", "id": 7 },
            })
        );
    }

    #[test]
    fn a_body_that_has_the_shape_already_goes_as_it_is() {
        let key = SecretIndex(0);
        for (template, body) in [
            (Template::Slack {}, r#"{"text":"hello <https://a|b>"}"#),
            (Template::Slack {}, r#"{"blocks":[]}"#),
            (Template::Discord {}, r#"{"content":"hi"}"#),
            (Template::Datadog {}, r#"[{"message":"hi"}]"#),
            (Template::Zapier {}, r#"{"a":1}"#),
            (Template::Linear {}, r#"{"query":"mutation {}"}"#),
        ] {
            let same: Value = serde_json::from_str(body).unwrap();
            assert_eq!(shaped(&template, &[], body, ""), same);
        }
        // But the key is never a tenant's body's to choose.
        assert_eq!(
            shaped(
                &Template::Pagerduty { routing_key: key },
                &[],
                r#"{"event_action":"resolve","dedup_key":"a","routing_key":"x"}"#,
                ""
            ),
            json!({ "event_action": "resolve", "dedup_key": "a", "routing_key": "R0UT1NG" })
        );
    }

    #[test]
    fn a_senders_text_is_no_markup_and_is_cut_where_the_service_ends() {
        let text = |template: &Template, body: &str, field: &str| {
            shaped(template, &[], body, "")[field]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let hostile = r#"{"type":"<!channel>","x":"``` @everyone <http://evil|x> & ```"}"#;
        let slack = text(&Template::Slack {}, hostile, "text");
        assert!(
            !slack.contains('<') && slack.contains("&lt;!channel&gt;"),
            "{slack}"
        );
        assert_eq!(slack.matches("```").count(), 2, "{slack}");
        let long = format!("\"{}\"", "é".repeat(50_000));
        assert!(text(&Template::Slack {}, &long, "text").chars().count() <= SLACK_TEXT);
        let discord = text(&Template::Discord {}, &long, "content");
        assert!(discord.chars().count() <= 2_000 && discord.ends_with("…\n```"));
        // Neither is JSON needed.
        assert!(text(&Template::Slack {}, "plain \u{1}", "text").contains("plain"));
        assert_eq!(
            text(&Template::Slack {}, "", "text"),
            "webhook in shop (evt_0192f3a4b5c67d8e9f00112233445566)"
        );
    }
}
