# What one does here. Everything goes through cargo; this only knows the order and the features.

# One set of features and one profile for the demo, the tests and the lints, so that RocksDB and
# every other crate are compiled once.
FEATURES := --workspace --features kms-client/cli --locked
BIN := $(or $(CARGO_TARGET_DIR),target)/debug

.PHONY: help setup build demo dev test prove prove-crash prove-damage prove-data-keys bench fuzz lint fmt check-format check-deps check-clippy check-proto

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

setup: ## what the build needs beside Rust (make itself does this before every build)
	@deploy/setup.sh

build: setup ## the daemon, the kms command and the demo
	cargo build $(FEATURES)

demo: build ## the main job on real input: a customer table encrypted column by column
	$(BIN)/kms-demo

dev: build ## a daemon to try things on, with throw-away certificates
	$(BIN)/kms-server dev

# What tests run against beside the build: SoftHSM2 with OpenSC's tools.
.PHONY: setup-tests
# After the other: two package managers at a time are one too many.
setup-tests: setup
	@deploy/setup.sh --with-tests

test: setup-tests build ## all tests; those that measure or count something show it
	cargo test $(FEATURES) -- --show-output

# The tests that are worth more at full scale, in about an hour. What they printed is kept in
# kms-server/doc/proof.
PROVE := KMS_TESTS_AT_FULL_SCALE=1 cargo test $(FEATURES) --test e2e -- --show-output --test-threads 1

prove: setup-tests build ## fences, failing logs, callers that hang up, moved data keys, retries, tokens, isolation, crashes and damage, at full scale
	$(PROVE) destruction:: log_failure:: hang_up:: data_keys:: rewrap:: retries:: pkcs11:: isolation:: crash:: damage::

prove-crash: build ## 1,000 kills under load, and 20 at every named place to die
	$(PROVE) crash::

prove-damage: build ## the bytes of a small data directory flipped, one at a time; KMS_TESTS_EVERY_BYTE=1 for all of them
	$(PROVE) damage::

# The figures of managed data keys: of a release build, which takes some minutes more the first time. DATA_KEYS of them;
# with DATA_KEYS_DIR they stay there, and a run that was stopped is gone on with. 300 bytes of disk for each, twice
# while they are re-wrapped.
DATA_KEYS ?= 10000000
prove-data-keys: setup ## what 10,000,000 managed data keys cost, in bytes of disk and in processor time; DATA_KEYS=n for another number
	cargo build --release -p kms-server -p kms-tests --bins --locked
	$(or $(CARGO_TARGET_DIR),target)/release/kms-trial data-keys $(DATA_KEYS) $(DATA_KEYS_DIR)

# Without the store and so without RocksDB; the build is of the release profile, and takes some minutes the first time.
bench: ## what decisions of policy cost, with 10,000 bindings: a minute, and some more to build it the first time
	cargo bench -p kms-server --no-default-features --bench policy --locked

# Of every decoder of what comes from outside or from disk; FUZZ_SECONDS for each (30).
fuzz: ## feeds every decoder with changed seeds for a while: some minutes, and 8 more to build it the first time
	@tests/fuzz/run.sh

lint: setup check-format check-deps check-clippy check-proto ## format, dependencies, clippy, proto

fmt: ## lay out the code
	cargo fmt --all

# The parts of lint, which .ci/run takes one by one.
check-format:
	cargo fmt --all --check

check-deps:
	deploy/check-deps.sh --selftest
	deploy/check-deps.sh

check-clippy:
	cargo clippy $(FEATURES) --all-targets -- -D warnings

check-proto:
	@if command -v buf >/dev/null; then echo "buf lint"; cd proto && buf lint; else echo "buf is not here: proto is not linted"; fi
