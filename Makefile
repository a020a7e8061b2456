# The tasks of this project. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Cargo's output folder.
BUILT := $(or $(CARGO_TARGET_DIR),target)
.PHONY: help demo serve test versions screenshots ci fmt lint doc book deny bench bench-quick steps backlog campaigns dead-letters outage soak chaos drill contract fuzz release image image-test clean tools rustfmt clippy

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## Run the demo on a real broker (ARGS="--events 10000 --stay")
	cargo build --profile quick --locked
	scripts/with-broker $(BUILT)/quick/waypost demo $(ARGS)

serve: tools ## Run a worker on an existing broker or a private one (ARGS="--set http.listen=127.0.0.1:9090")
	cargo build --profile quick --locked
	scripts/with-broker $(BUILT)/quick/waypost serve $(ARGS)

# Uses cargo-nextest if it is installed: unit tests run beside integration tests, with four tests at a time (.config/nextest.toml).
# RABBITMQ is 3.10, 4.0, 4.3 or installed. The default is 4.3, or the installed version if 4.3 can't be prepared (scripts/rabbitmq-version).
test: tools ## Run all tests, with private RabbitMQ nodes and browsers (RABBITMQ=4.0 for another version)
	scripts/install-rabbitmq
	scripts/install-fault-tools
	scripts/install-chromium
	scripts/install-prometheus
	scripts/install-validators $(BUILT)/tmp/validators
	if command -v cargo-nextest >/dev/null; then scripts/with-test-broker cargo nextest run --workspace --locked; \
	else RUST_TEST_THREADS=4 cargo test --workspace --locked; fi

versions: tools ## Run the tests that depend on RabbitMQ on the other supported versions
	scripts/test-versions

# The test profile builds faster, and the pages look the same.
screenshots: tools ## Take screenshots of the console into docs/screenshots (ARGS=overview for one page)
	scripts/install-rabbitmq
	scripts/install-chromium
	cargo bench --locked --profile dev --bench screenshots -- $(ARGS)

ci: tools rustfmt ## Run what continuous integration runs: format, lints, documentation, tests on all versions of RabbitMQ
	cargo fmt --all --check
	$(MAKE) lint doc test
	$(MAKE) versions

fmt: tools rustfmt ## Format the code
	cargo fmt --all

lint: tools clippy ## Lint code, shell scripts and spelling, with warnings denied
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/install-lint-tools $(BUILT)/tmp/lint-tools
	$(BUILT)/tmp/lint-tools/bin/shellcheck $$(grep -lE '^#!.*sh\b' .ci/run scripts/*) scripts/packages.sh
	$(BUILT)/tmp/lint-tools/bin/typos

doc: tools ## Build the code documentation with warnings denied, and check the links in Markdown files
	scripts/check-links
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

book: ## Check the links of docs/ and build it as a book in target/book
	scripts/check-links
	@command -v mdbook >/dev/null || { echo "make book needs mdBook: cargo install --locked mdbook"; exit 1; }
	mdbook build

deny: tools ## Check the licences and advisories of dependencies
	@command -v cargo-deny >/dev/null || { echo "make deny needs cargo-deny: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check

# A thousand endpoints need a few thousand connections at each end, so the limit of file descriptors is raised.
bench: tools ## Measure the throughput of a worker, compared with minimal loops and handwritten workers (ARGS=--help)
	scripts/install-rabbitmq
	scripts/bench-peers $(BUILT)/tmp/peers
	cargo build --release --locked --bin waypost --bench throughput --example bare-loop
	ulimit -n "$$(ulimit -H -n)" && cargo bench --profile release --locked --bench throughput -- $(ARGS)

bench-quick: ## Run the benchmark for three minutes, to check that it works. Too short for figures
	$(MAKE) bench ARGS="--rounds 1 --events 5000 --limit 3 --warm-up 1 --seconds 1 --retries 5000"

steps: tools ## Measure the cost of each step of a delivery without I/O (ARGS=render for one step)
	cargo bench --locked --bench steps -- $(ARGS)

backlog: tools ## Measure the memory of a worker with a million events ready (ARGS=100000 for fewer)
	scripts/install-rabbitmq
	cargo bench --locked --bench backlog -- $(ARGS)

campaigns: tools ## Measure workers with 100,000 campaigns and 500,000 changes (ARGS=10000 for fewer)
	cargo bench --locked --bench campaigns --no-run
	scripts/with-broker cargo bench --locked --bench campaigns -- $(ARGS)

dead-letters: tools ## Measure a worker with a million dead letters (ARGS=100000 for fewer)
	cargo bench --locked --bench dead_letters --no-run
	scripts/with-broker cargo bench --locked --bench dead_letters -- $(ARGS)

outage: tools ## Measure how fast 500,000 deliveries are made up for after an outage (ARGS="--deliveries 20000")
	scripts/install-rabbitmq
	ulimit -n "$$(ulimit -H -n)" && cargo bench --profile release --locked --bench outage -- $(ARGS)

soak: tools ## Run a worker for an hour, and fail if its memory, files or store grow (ARGS="--minutes 5 --rate 200")
	scripts/install-rabbitmq
	ulimit -n "$$(ulimit -H -n)" && cargo bench --profile release --locked --bench soak -- $(ARGS)

chaos: tools ## Inject faults into a cluster and account for every event (ARGS="--seed 7 --minutes 10 --rate 60 --tls" RABBITMQ=4.3)
	scripts/install-rabbitmq
	scripts/install-fault-tools
	cargo bench --locked --bench chaos -- $(ARGS)

# Takes 75 minutes, because the alerts wait as long as in production.
drill: tools ## Inject faults, and check which alerts fire (ARGS=broker for one fault, --by-hand to fix it yourself)
	scripts/install-rabbitmq
	scripts/install-prometheus
	cargo build --release --locked
	test -x $(BUILT)/tmp/drill-python/bin/python || python3 -m venv $(BUILT)/tmp/drill-python
	$(BUILT)/tmp/drill-python/bin/pip install --quiet --disable-pip-version-check pika==1.3.2
	$(BUILT)/tmp/drill-python/bin/python scripts/drill $(BUILT)/release/waypost $(BUILT)/tmp/drill-$$(date +%Y%m%dT%H%M%S) $(ARGS)

contract: tools ## Write the JSON Schemas, the AsyncAPI and the OpenAPI description into docs/contract
	mkdir -p docs/contract
	for name in event campaign asyncapi; do cargo run --quiet --locked -- contract $$name > docs/contract/$$name.json; done
	cargo run --quiet --locked -- openapi > docs/contract/openapi.json

fuzz: tools ## Fuzz each target for a minute (SECONDS=10 for less, ARGS="event url" for some targets)
	scripts/fuzz $(or $(SECONDS),60) $(ARGS)

release: tools ## Build an optimised worker, with its debug lines in a file of their own, in target/dist
	cargo build --release --locked --bin waypost
	scripts/split-debug $(BUILT)/release/waypost $(BUILT)/dist/waypost

image: tools ## Build the image with the first of docker, podman and buildah that works (docs/IMAGE.md)
	scripts/image

# Not part of `make ci`, because it needs root and compiles an optimised program for minutes.
image-test: tools ## Build the image, run it and send an event through it. Needs root, takes minutes (ARGS=--built for the last image)
	scripts/image-test $(ARGS)

clean: ## Remove build output
	cargo clean
	rm -rf fuzz/target

tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it with rustup, with the components rustfmt and clippy"; exit 1; }

rustfmt: tools
	@cargo fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: rustup component add rustfmt"; exit 1; }

clippy: tools
	@cargo clippy --version >/dev/null 2>&1 || { echo "clippy is missing: rustup component add clippy"; exit 1; }
