# All that is done with this project, one target to a thing. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo serve test ci fmt lint doc deny backlog clean tools

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## See a whole journey on a real broker (ARGS="--events 10000 --stay")
	cargo build --release --locked
	scripts/with-broker target/release/waypost demo $(ARGS)

serve: tools ## Run a worker on the broker there is, or on one of its own (ARGS="--set http.listen=127.0.0.1:9090")
	cargo build --release --locked
	scripts/with-broker target/release/waypost serve $(ARGS)

test: tools ## Run all tests, against RabbitMQ nodes of their own
	scripts/install-rabbitmq
	cargo test --locked

ci: tools ## What continuous integration runs: format, lints, documentation, tests
	cargo fmt --check
	$(MAKE) lint doc test

fmt: tools ## Format the code
	cargo fmt

lint: tools ## Lint, with warnings denied
	cargo clippy --all-targets --locked -- -D warnings

doc: tools ## Build the documentation, with warnings denied
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked

deny: tools ## Check licences and advisories of the dependencies
	@command -v cargo-deny >/dev/null || { echo "make deny needs cargo-deny: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check

backlog: tools ## Measure a worker's memory with a million events ready (ARGS=100000 for fewer)
	scripts/install-rabbitmq
	cargo bench --locked --bench backlog -- $(ARGS)

clean: ## Remove what was built
	cargo clean

tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it with rustup, and with it rustfmt and clippy"; exit 1; }
