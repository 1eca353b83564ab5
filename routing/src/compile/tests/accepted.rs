//! What compiles, and what the row then holds.

use super::*;
use expect_test::{Expect, expect};

fn check_row(yaml: &str, key: &str, expected: Expect) {
    let mut ground = Ground::of(yaml);
    let said = ground.compile();
    let row = ground.row(key).unwrap_or_else(|| panic!("{said}"));
    let payload: serde_json::Value = serde_json::from_slice(&row.payload()).expect("JSON");
    expected.assert_eq(&serde_json::to_string_pretty(&payload["spec"]).expect("JSON"));
    assert_eq!(
        crate::row::parse_payload(&row.payload()).expect("readable"),
        row.spec
    );
}

#[test]
fn the_quickstart_compiles_as_it_stands() {
    let mut ground = Ground::of(QUICKSTART);
    expect![[r#"
        changed Source/shop/github generation 1
        changed Destination/shop/ci generation 1
        changed Connection/shop/github-to-ci generation 1
    "#]]
    .assert_eq(&ground.compile());
    expect![""].assert_eq(&ground.compile());
    let secrets = ground.compiler.wanted_secrets();
    assert_eq!(
        secrets,
        [("shop".to_owned(), "github-webhook".to_owned())].into()
    );
    let row = ground.row("Source/shop/github").expect("a row");
    assert_eq!(row.secrets, [Secret::new("It's a Secret to Everybody")]);
}

#[test]
fn a_template_is_expanded_and_its_secrets_are_named_by_place() {
    check_row(
        QUICKSTART,
        "Source/shop/github",
        expect![[r#"
            {
              "source": {
                "path": "github",
                "methods": [],
                "suspended": false,
                "verification": {
                  "scheme": {
                    "hmac": {
                      "algorithm": "sha256",
                      "signatures": [
                        {
                          "header": "x-hub-signature-256"
                        }
                      ],
                      "encoding": "hex",
                      "prefix": "sha256=",
                      "content": [
                        "body"
                      ],
                      "timestamp": null,
                      "id": null,
                      "secret": "text",
                      "twilio": false
                    }
                  },
                  "secrets": [
                    0
                  ]
                },
                "max_body_bytes": 10485760
              }
            }"#]],
    );
}

#[test]
fn every_field_of_a_source_that_works_reaches_its_row() {
    check_row(
        "
kind: Secret
metadata: {name: s}
stringData: {current: a, previous: b}
---
kind: Source
metadata: {name: src}
spec:
  displayName: For people
  path: billing/stripe
  methods: [PUT, POST, PUT]
  suspend: true
  maxBodySize: 1Mi
  allowedNamespaces: {from: Same}
  verification:
    hmac:
      algorithm: SHA256
      header: X-Signature
      encoding: Base64
      prefix: 'v1='
      signedContent: '{timestamp}.{body}'
      timestamp: {header: X-Timestamp, tolerance: 1m}
    secretRefs:
    - {name: s, key: current}
    - {name: s, key: previous}
",
        "Source/shop/src",
        expect![[r#"
            {
              "source": {
                "path": "billing/stripe",
                "methods": [
                  "POST",
                  "PUT"
                ],
                "suspended": true,
                "verification": {
                  "scheme": {
                    "hmac": {
                      "algorithm": "sha256",
                      "signatures": [
                        {
                          "header": "x-signature"
                        }
                      ],
                      "encoding": "base64",
                      "prefix": "v1=",
                      "content": [
                        "timestamp",
                        {
                          "literal": "."
                        },
                        "body"
                      ],
                      "timestamp": {
                        "at": {
                          "header": "x-timestamp"
                        },
                        "unit": "seconds",
                        "tolerance_ms": 60000
                      },
                      "id": null,
                      "secret": "text",
                      "twilio": false
                    }
                  },
                  "secrets": [
                    0,
                    1
                  ]
                },
                "max_body_bytes": 1048576
              }
            }"#]],
    );
}

#[test]
fn what_a_destination_leaves_out_has_the_documented_defaults() {
    check_row(
        SHOP,
        "Destination/shop/dst",
        expect![[r#"
            {
              "destination": {
                "suspended": false,
                "provider": {
                  "http": {
                    "url": "https://example.com/hooks",
                    "method": null,
                    "headers": [],
                    "timeout": 30000,
                    "auth": null,
                    "tls": null,
                    "template": null,
                    "cloud_events": null,
                    "signing": null
                  }
                },
                "retry": {
                  "backoff": "exponential",
                  "intervals_ms": [
                    30000,
                    300000,
                    1800000,
                    7200000,
                    86400000
                  ],
                  "max_retries": 5,
                  "max_age_ms": null,
                  "retry_on": [
                    {
                      "status": {
                        "from": 100,
                        "to": 999
                      }
                    },
                    "timeout",
                    "unreachable"
                  ],
                  "respect_retry_after": true,
                  "jitter_percent": 0
                },
                "concurrency": 20,
                "circuit": {
                  "trip": {
                    "in_a_row": 5
                  },
                  "cooldown": 60000
                },
                "rate_limit": null,
                "order": null
              }
            }"#]],
    );
}

#[test]
fn every_field_of_a_destination_that_works_reaches_its_row() {
    check_row(
        "
kind: Secret
metadata: {name: s}
stringData: {username: me, password: pw}
---
kind: Destination
metadata: {name: dst}
spec:
  displayName: For people
  suspend: true
  http:
    url: http://[::1]:8080/a?b=c
    method: PUT
    headers: {X-Env: prod, a: b}
    timeout: 1500ms
    auth: {basic: {secretRef: {name: s}}}
  retry:
    backoff: Linear
    intervals: [1m]
    maxRetries: 0
    maxAge: 3d
    retryOn: [5xx, 408, '429', Timeout]
    respectRetryAfter: false
  concurrency: 7
  ordering: {mode: None}
",
        "Destination/shop/dst",
        expect![[r#"
            {
              "destination": {
                "suspended": true,
                "provider": {
                  "http": {
                    "url": "http://[::1]:8080/a?b=c",
                    "method": "PUT",
                    "headers": [
                      [
                        "a",
                        "b"
                      ],
                      [
                        "x-env",
                        "prod"
                      ]
                    ],
                    "timeout": 1500,
                    "auth": {
                      "basic": {
                        "username": 0,
                        "password": 1
                      }
                    },
                    "tls": null,
                    "template": null,
                    "cloud_events": null,
                    "signing": null
                  }
                },
                "retry": {
                  "backoff": "linear",
                  "intervals_ms": [
                    60000
                  ],
                  "max_retries": 0,
                  "max_age_ms": 259200000,
                  "retry_on": [
                    {
                      "status": {
                        "from": 500,
                        "to": 599
                      }
                    },
                    {
                      "status": {
                        "from": 408,
                        "to": 408
                      }
                    },
                    {
                      "status": {
                        "from": 429,
                        "to": 429
                      }
                    },
                    "timeout"
                  ],
                  "respect_retry_after": false,
                  "jitter_percent": 0
                },
                "concurrency": 7,
                "circuit": {
                  "trip": {
                    "in_a_row": 5
                  },
                  "cooldown": 60000
                },
                "rate_limit": null,
                "order": null
              }
            }"#]],
    );
}

#[test]
fn bearer_and_api_key_name_their_secret_by_place() {
    for (auth, expected) in [
        (
            "bearer: {secretRef: {name: s, key: k}}",
            crate::row::Auth::Bearer {
                token: crate::row::SecretIndex(0),
            },
        ),
        (
            "apiKey: {header: X-Key, secretRef: {name: s, key: k}}",
            crate::row::Auth::ApiKey {
                header: "x-key".to_owned(),
                key: crate::row::SecretIndex(0),
            },
        ),
        (
            "apiKey: {secretRef: {name: s, key: k}}",
            crate::row::Auth::ApiKey {
                header: "x-api-key".to_owned(),
                key: crate::row::SecretIndex(0),
            },
        ),
    ] {
        let mut ground = Ground::of(&format!(
            "{{kind: Secret, metadata: {{name: s}}, stringData: {{k: token}}}}\n---\n\
             kind: Destination\nmetadata: {{name: dst}}\nspec: {{http: {{url: 'https://e.com', auth: {{{auth}}}}}}}"
        ));
        let said = ground.compile();
        let row = ground
            .row("Destination/shop/dst")
            .unwrap_or_else(|| panic!("{said}"));
        let Spec::Destination(spec) = row.spec else {
            panic!("another kind")
        };
        let crate::row::Provider::Http(http) = spec.provider;
        assert_eq!(http.auth, Some(expected));
        assert_eq!(row.secrets, [Secret::new("token")]);
    }
}

#[test]
fn a_connection_carries_its_filter_and_retries() {
    check_row(
        &format!(
            "{SHOP}---
kind: Connection
metadata: {{name: con}}
spec:
  displayName: Large orders
  source: {{name: src}}
  destination: {{name: dst, namespace: shop}}
  suspend: false
  filter:
    all:
    - {{path: body.type, op: in, value: [order.created, order.updated]}}
    any:
    - {{path: 'body.order.tags[*]', op: eq, value: vip}}
    none:
    - {{path: body.test, op: eq, value: true}}
  retry: {{backoff: Fixed, intervals: [10s], maxRetries: 3}}
"
        ),
        "Connection/shop/con",
        expect![[r#"
            {
              "connection": {
                "source": "00000000-0000-0000-0000-000000000001",
                "destination": "00000000-0000-0000-0000-000000000002",
                "suspended": false,
                "filter": {
                  "all": [
                    {
                      "path": {
                        "body": [
                          {
                            "key": "type"
                          }
                        ]
                      },
                      "test": {
                        "in": [
                          "order.created",
                          "order.updated"
                        ]
                      }
                    }
                  ],
                  "any": [
                    {
                      "path": {
                        "body": [
                          {
                            "key": "order"
                          },
                          {
                            "key": "tags"
                          },
                          "each"
                        ]
                      },
                      "test": {
                        "eq": "vip"
                      }
                    }
                  ],
                  "none": [
                    {
                      "path": {
                        "body": [
                          {
                            "key": "test"
                          }
                        ]
                      },
                      "test": {
                        "eq": true
                      }
                    }
                  ]
                },
                "expression": null,
                "transform": null,
                "retry": {
                  "backoff": "fixed",
                  "intervals_ms": [
                    10000
                  ],
                  "max_retries": 3,
                  "max_age_ms": null,
                  "retry_on": [
                    {
                      "status": {
                        "from": 100,
                        "to": 999
                      }
                    },
                    "timeout",
                    "unreachable"
                  ],
                  "respect_retry_after": true,
                  "jitter_percent": 0
                }
              }
            }"#]],
    );
}

#[test]
fn applying_the_same_again_changes_nothing_but_the_generation() {
    let mut ground = Ground::of(QUICKSTART);
    ground.compile();
    let again: Vec<Row> = ground.compiler.rows().cloned().collect();
    ground
        .generations
        .values_mut()
        .for_each(|generation| *generation = 0);
    ground.apply(QUICKSTART);
    expect![""].assert_eq(&ground.compile());
    assert!(ground.compiler.rows().eq(&again));
}
