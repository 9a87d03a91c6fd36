# The commands a newcomer needs. Each of them works on a fresh machine with a Rust toolchain.
#
#   make run     edge, origin and monitor on loopback, with sample data, until Ctrl-C
#   make demo    the same, and a call that survives the death of both
#   make test    everything that is tested
#   make lint    formatting, clippy, licences and advisories
#   make fuzz    inputs that nobody thought of, for FUZZ_SECONDS (600) each
#   make bench   what the edge costs, beside nginx and Envoy
#   make bench-failover   what callers get while an origin fails, beside five proxies; QUICK=1 for short
#   make bench-origin   what the origin bears, and a quarter of an hour of campaigns with faults; QUICK=1 for short
#   make bench-spool   what it costs to keep callbacks, beside Redis and the disk itself
#   make bench-front-door   what TLS, HTTP/2, idle connections and slow senders cost, beside nginx
#   make install   the program, its unit, configuration and documentation below PREFIX (and DESTDIR)
#   make deb     the same as a Debian package, in target/debian
#   make setup   what building and testing need; the others call it

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
export PATH := $(TOOLS)/bin:$(PATH)
export HOLDLINE_ORACLE := $(CURDIR)/target/oracle

.PHONY: run demo test lint fuzz bench bench-failover bench-origin bench-spool bench-front-door install deb setup \
	setup-build

run: setup-build
	$(CARGO) build --workspace --bins
	target/debug/stage run

demo: setup-build
	$(CARGO) build --workspace --bins
	target/debug/stage demo

test: setup
	promtool check rules config/prometheus/alerts.yml
	promtool test rules tests/prometheus/alerts.test.yml
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
	$(MAKE) fuzz FUZZ_SECONDS=10

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	tests/setup deny $(TOOLS)
	cargo-deny --config deny.toml check licenses bans sources
	@if cargo-deny fetch db >/dev/null 2>&1; then cargo-deny --config deny.toml check advisories; \
	else echo "lint: the advisory database cannot be reached; advisories were not checked" >&2; fi

# Coverage comes from the compiler, which gives it on the stable toolchain too. What is found anew is
# kept under target/fuzz; what makes a target fail is written there as well, and named.
FUZZ_SECONDS ?= 600
FUZZ := $(CURDIR)/target/fuzz
FUZZ_TARGETS := chunks config form head proxy_header route signature token
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
fuzz_one = mkdir -p $(FUZZ)/found/$(1) && $(FUZZ)/$(HOST)/release/$(1) -max_total_time=$(FUZZ_SECONDS) \
	-max_len=2048 -timeout=5 -artifact_prefix=$(FUZZ)/$(1)- $(FUZZ)/found/$(1) $(2) >$(FUZZ)/$(1).log 2>&1 \
	|| { cat $(FUZZ)/$(1).log; exit 1; }; echo "$(1): $$(tail -1 $(FUZZ)/$(1).log)"

fuzz: setup-build
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --locked --manifest-path tests/fuzz/Cargo.toml \
		--target $(HOST) --target-dir $(FUZZ)
	@$(call fuzz_one,document,proxy/twilio/tests/bad_documents static-twiml)
	@$(foreach target,$(FUZZ_TARGETS),$(call fuzz_one,$(target),tests/fuzz/seeds/$(target));)

bench: setup
	tests/setup bench $(TOOLS)
	$(CARGO) build --release -p holdline -p holdline-tests --bins
	target/release/bench

# The short form: one rate, the edge and one peer, nothing written to docs.
bench-failover: setup
	tests/setup bench-failover $(TOOLS)
	$(CARGO) build --release -p holdline -p holdline-tests --bins
	target/release/bench-failover $(if $(QUICK),--rate 20 --peer holdline --peer nginx,--out docs/failover)

bench-origin: setup
	$(CARGO) build --release -p holdline -p holdline-origin -p holdline-tests --bins
	target/release/bench-origin load
	target/release/bench-origin campaign --minutes $(if $(QUICK),2,15)

bench-spool: setup
	tests/setup bench-spool $(TOOLS)
	$(CARGO) build --release -p holdline -p holdline-tests --bins
	target/release/bench-spool

bench-front-door: setup
	tests/setup bench-front-door $(TOOLS)
	$(CARGO) build --release -p holdline -p holdline-tests --bins
	target/release/bench-front-door

PREFIX ?= /usr/local
DOCUMENTS := README.md CHANGELOG.md config/prometheus/alerts.yml config/grafana/holdline.json config/systemd/environment.example $(wildcard docs/*.md)

install: setup-build
	$(CARGO) build --release --locked -p holdline
	install -D -m 0755 target/release/holdline $(DESTDIR)$(PREFIX)/bin/holdline
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	sed 's,/usr/bin/,$(PREFIX)/bin/,; s,/usr/share/,$(PREFIX)/share/,' config/systemd/holdline.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/holdline.service
	install -m 0644 config/systemd/holdline.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/holdline.conf
	install -d $(DESTDIR)$(PREFIX)/share/doc/holdline
	install -m 0644 $(DOCUMENTS) $(DESTDIR)$(PREFIX)/share/doc/holdline/
	install -d $(DESTDIR)/etc/holdline
	test -e $(DESTDIR)/etc/holdline/holdline.toml || \
		install -m 0644 config/production.toml $(DESTDIR)/etc/holdline/holdline.toml

deb: setup-build
	tests/setup deb $(TOOLS)
	cargo-deb --package holdline --locked

setup: setup-build
	tests/setup test $(TOOLS)

setup-build:
	@tests/setup build $(TOOLS)
