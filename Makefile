# The commands a newcomer needs. Each of them works on a fresh machine with a Rust toolchain.
#
#   make run     edge, origin and monitor on loopback, with sample data, until Ctrl-C
#   make demo    the same, and a call that survives the death of both
#   make test    everything that is tested
#   make lint    formatting, clippy, licences and advisories
#   make bench   what the edge costs, beside nginx and Envoy
#   make setup   what building and testing need; the others call it

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)
export HOLDLINE_ORACLE := $(CURDIR)/target/oracle

.PHONY: run demo test lint bench setup setup-build

run: setup-build
	$(CARGO) build --workspace --bins
	target/debug/stage run

demo: setup-build
	$(CARGO) build --workspace --bins
	target/debug/stage demo

test: setup
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	tests/setup deny $(TOOLS)
	cargo-deny --config deny.toml check licenses bans sources
	@if cargo-deny fetch db >/dev/null 2>&1; then cargo-deny --config deny.toml check advisories; \
	else echo "lint: the advisory database cannot be reached; advisories were not checked" >&2; fi

bench: setup
	tests/setup bench $(TOOLS)
	$(CARGO) build --release -p holdline -p holdline-tests --bins
	target/release/bench

setup: setup-build
	tests/setup test $(TOOLS)

setup-build:
	@tests/setup build $(TOOLS)
