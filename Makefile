# Everything a person or CI does here. `make` alone prints this list.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo test node-trial check bench fuzz image generate clean-servers

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

demo: ## builds, starts `hookstream dev examples/quickstart`, sends signed webhooks, shows what happened
	@testground/install.sh postgres
	@cargo build --quiet -p cli --bin hookstream
	@cargo run --quiet -p cli --example demo

test: ## the whole suite; installs the servers it needs (first time: some minutes)
	@testground/test.sh

node-trial: ## the chart and the image on a real node; root only, not part of `test` (about five minutes)
	@testground/node-trial.sh

check: ## fmt, clippy, docs and generated files
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- --deny warnings
	cargo check -p cli --no-default-features --quiet
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --quiet
	cargo test --quiet -p crds
	@! command -v cargo-deny >/dev/null || cargo deny --log-level error check

bench: ## release build; prints a table of what it measured and writes target/bench.json
	@testground/install.sh postgres
	cargo build --release --quiet -p gateway --bin hookstream-gateway -p tests --bin bench
	target/release/bench

generate: ## writes the generated files anew (CRDs in the chart)
	UPDATE_EXPECT=1 cargo test --quiet -p crds

fuzz: ## searches each parser of a sender's bytes for a minute; needs nightly and cargo-fuzz (a short run is part of `test`)
	@export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16; \
	for target in $$(ls fuzz/seeds); do mkdir -p fuzz/corpus/$$target; \
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target --features libfuzzer -- -max_total_time=60 || exit 1; done

image: ## the container image, by docker or podman
	docker build -t hookstream:dev .

clean-servers: ## ends the test servers that stay up between runs
	@testground/stop.sh
