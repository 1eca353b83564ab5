//! The plans of the hot statements: by key, whatever the planner knows about the tables.
//!
//! Three states of the tables: never looked at, looked at while empty (when a sequential scan costs nothing), and full.
//! The plan of a prepared statement is made once and kept, so the worst of them counts.

use crate::support::*;
use store::testing::{Database, HOT_STATEMENTS};

/// The plan for a statement whose parameters aren't known yet, as a prepared one is planned.
async fn plan(connection: &mut sqlx::PgConnection, sql: &str) -> String {
    let parameters = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = vec!["NULL"; parameters].join(", ");
    let execute = if parameters == 0 {
        "hot".to_owned()
    } else {
        format!("hot({nulls})")
    };
    let prepare = format!("SET plan_cache_mode = force_generic_plan; PREPARE hot AS {sql}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {execute}");
    let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    sqlx::raw_sql("DEALLOCATE hot")
        .execute(connection)
        .await
        .unwrap();
    lines.join("\n")
}

async fn check_all(db: &Database, state: &str) {
    for (name, sql) in HOT_STATEMENTS {
        let mut connection = db.store.pool.raw().acquire().await.unwrap();
        let plan = plan(&mut connection, sql).await;
        assert!(!plan.contains("Seq Scan"), "{name}, {state}:\n{plan}");
        assert!(
            !plan.contains("Hash Join") && !plan.contains("Merge Join"),
            "{name}, {state}:\n{plan}"
        );
        // A scan of an index without a condition reads all of it; leases are few, and counting is meant to read.
        let lines: Vec<&str> = plan.lines().collect();
        for pair in lines.windows(2) {
            let whole = pair[0].contains("Scan using") && !pair[1].contains("Index Cond");
            let few = pair[0].contains("on lease") || name == "count";
            assert!(!whole || few, "{name}, {state}: {}\n{plan}", pair[0]);
        }
        if name == "write" || name == "write_new" {
            let full_key = "Index Cond: ((shard = k.shard) AND (destination_id = k.destination_id) AND (due_at = k.due_at) AND (delivery_id = k.delivery_id))";
            let keyed = plan
                .replace("k_1.", "k.")
                .replace("k_2.", "k.")
                .matches(full_key)
                .count();
            assert_eq!(keyed, 2, "{name}, {state}:\n{plan}");
            assert_eq!(
                plan.matches("Tid Scan on queue").count(),
                2,
                "{name}, {state}:\n{plan}"
            );
        }
        if name == "head" || name == "next_due" {
            let key = "Index Cond: ((shard = $1) AND (destination_id = $2) AND (ROW(due_at, delivery_id) > ROW($3, $4)))";
            assert!(plan.contains(key), "{name}, {state}:\n{plan}");
        }
        if name == "head_but" {
            let key = "Index Cond: ((shard = $1) AND (destination_id = $2))";
            assert!(plan.contains(key), "{name}, {state}:\n{plan}");
        }
        if ["record", "record_keyed", "write", "write_new", "head_but"].contains(&name) {
            assert!(plan.contains("hashed SubPlan"), "{name}, {state}:\n{plan}");
        }
    }
}

const FILL: &str = "
INSERT INTO events SELECT id, 'n', id, 1, now(), 'POST', '/', '', '', 'x', '127.0.0.1'
    FROM (SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000' || substr(md5(n::text), 1, 16))::uuid AS id
          FROM generate_series(1, 20000) n) e;
INSERT INTO queue SELECT n % 8, ('00000000-0000-0000-0000-0000000000' || lpad((n % 50)::text, 2, '0'))::uuid, now() + n * interval '1 ms',
    gen_random_uuid(), id, id, 'n', 0, now() FROM (SELECT id, row_number() OVER () AS n FROM events CROSS JOIN generate_series(1, 5)) e";

#[tokio::test]
async fn every_hot_statement_goes_by_key_on_tables_that_nobody_has_looked_at() {
    let db = Database::create().await;
    check_all(&db, "fresh").await;
}

#[tokio::test]
async fn every_hot_statement_goes_by_key_on_tables_that_were_empty_when_looked_at() {
    let db = Database::create().await;
    execute(&db.store.pool, "VACUUM ANALYZE queue").await;
    execute(&db.store.pool, "VACUUM ANALYZE events").await;
    check_all(&db, "analyzed while empty").await;
}

#[tokio::test]
async fn every_hot_statement_goes_by_key_on_a_hundred_thousand_rows() {
    let db = Database::create().await;
    execute(&db.store.pool, FILL).await;
    check_all(&db, "full, not analyzed").await;
    execute(&db.store.pool, "ANALYZE").await;
    check_all(&db, "full, analyzed").await;
}

#[tokio::test]
async fn a_page_of_the_queue_touches_one_days_partition() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    execute(pool, FILL).await;
    let mut connection = pool.raw().acquire().await.unwrap();
    let (_, head) = HOT_STATEMENTS
        .iter()
        .find(|(name, _)| *name == "head")
        .unwrap();
    let prepare = format!("SET plan_cache_mode = force_generic_plan; PREPARE hot AS {head}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE hot(1, '00000000-0000-0000-0000-000000000001', 'epoch', '00000000-0000-0000-0000-000000000000', 500, 4194304)";
    let lines: Vec<String> = sqlx::query_scalar(explain)
        .persistent(false)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let used: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("on events_") && !line.contains("never executed"))
        .collect();
    // Once for the sizes, once for the rows.
    assert_eq!(used.len(), 2, "{}", lines.join("\n"));
}
