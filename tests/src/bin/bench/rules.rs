//! What a source's rules cost an event: the same requests to a source that only verifies, and to one that also remembers
//! ids and whose connection filters by the body. In turns, in one run.

use crate::{
    gateway::{Gateway, object},
    load,
    report::{Goal, Report},
    room::Room,
    scenarios::body,
};
use serde_json::json;
use std::time::Duration;

/// What must be left: ingest with the rules on is to be within 15 % of the first release that had none (9f84316). In turns
/// with that one on one machine, verification alone made 130 % of its figure and all rules 108 %; so this leaves a margin.
const LEFT: f64 = 75.0;

/// An even number.
const TURNS: usize = 6;

pub(crate) async fn run(room: &Room, report: &mut Report) -> anyhow::Result<()> {
    let sink = json!({"suspend": true, "http": {"url": "http://127.0.0.1:9/never"}});
    let mut gateway = Gateway::start(room, "rules", sink).await?;
    let source = json!({
        "path": "ruled",
        "verification": {"hmac": {"algorithm": "SHA256", "header": "x-signature", "encoding": "Hex", "prefix": "v1="}, "secretRefs": [{"name": "bench", "key": "key"}]},
        "dedup": {"strategy": "HeaderField", "field": "x-id", "window": "24h"}
    });
    let mut source = object("Source", 4, source, 1);
    source["metadata"]["name"] = json!("ruled");
    let mut connection = object(
        "Connection",
        5,
        json!({
            "source": {"name": "ruled"}, "destination": {"name": "sink"},
            "filter": {"all": [{"path": "body.type", "op": "eq", "value": "order.created"}]}
        }),
        1,
    );
    connection["metadata"]["name"] = json!("ruled");
    gateway.apply(&[source, connection])?;
    gateway.publish().await?;
    let requests = ["bench", "ruled"].map(|source| gateway.request_to(source, &body(0)));
    let (mut rates, mut cpu) = ([0.0; 2], [0.0; 2]);
    for turn in 0..=TURNS {
        // Whatever follows the other has its commits still on their way to the disk, so both are first as often.
        for which in [turn % 2, 1 - turn % 2] {
            let before = gateway.cpu_seconds()?;
            let seen = load::closed(&requests[which], 128, Duration::from_secs(3)).await?;
            anyhow::ensure!(seen.refused == 0, "{} requests were refused", seen.refused);
            // The first turn warms up.
            if turn > 0 {
                let micros = (gateway.cpu_seconds()? - before) * 1e6 / seen.accepted as f64;
                rates[which] += seen.per_second() / TURNS as f64;
                cpu[which] += micros / TURNS as f64;
            }
        }
    }
    let copies: i64 =
        sqlx::query_scalar("select count(*) from events where duplicate_of is not null")
            .fetch_one(gateway.store.pool.raw())
            .await?;
    anyhow::ensure!(copies == 0, "{copies} of the bench's events were copies");
    report.add(
        "ingest with HMAC, dedup and a filter / with HMAC",
        rates[1] / rates[0] * 100.0,
        "%",
        Goal::AtLeast(LEFT),
        format!(
            "{:.0}/s against {:.0}/s; {:.0} and {:.0} µs of gateway CPU an event",
            rates[1], rates[0], cpu[1], cpu[0]
        ),
    );
    gateway.stop().await
}
