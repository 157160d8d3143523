# make demo   installs, builds, and shows a migration between two real Milvus
# make test   formats, lints and tests, on real servers
# make bench  measures
# make soak   simulates SEEDS=20000 seeds; then, on real servers, kills it at every fail point and at KILLS=100 random instants
#
# MQ=kafka or MQ=pulsar: demo has the source write its log there instead of RocksMQ; test-e2e and soak take a list, default all.
# One profile (release) builds everything, outside of the checkout, so that each dependency is compiled once.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/migrans
export CARGO_TARGET_DIR ?= $(CACHE)/target
export MIGRANS_TESTBED ?= $(CACHE)/testbed
QUEUES := rocksmq,kafka,pulsar
PYTHON := $(MIGRANS_TESTBED)/venv/bin/python
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: help install build lint demo test test-rust test-e2e soak bench clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -6

install:
	@testbed/install.sh

build: install
	cargo build --release --bins --tests

lint: install
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --offline check licenses bans sources; \
	else echo "cargo-deny is not installed: licences and sources of the dependencies are not checked"; fi

demo: install
	cargo build --release
	$(PYTHON) -m testbed.demo $(if $(MQ),--mq $(MQ)) $(DEMO_ARGS)

test: test-rust test-e2e

test-rust: build
	cargo test --release

test-e2e: build
	$(PYTHON) tests/e2e/side_by_side.py $(if $(MQ),--mq $(MQ)) $(E2E_ARGS)

soak: build
	MIGRANS_SEEDS=$(or $(SEEDS),20000) MIGRANS_FIRST_SEED=$(or $(SEED),1)0000000 cargo test --release --test simulation -- --nocapture
	MIGRANS_KILLS=$(or $(KILLS),100) MIGRANS_SEED=$(or $(SEED),1) $(PYTHON) -m pytest -p no:cacheprovider tests/e2e/test_kills.py -q -s \
	  --mq $(or $(MQ),$(QUEUES)) $(SOAK_ARGS)

bench: build
	cargo bench
	$(PYTHON) -m benches.e2e $(BENCH_ARGS)
	$(PYTHON) -m benches.queues $(QUEUE_BENCH_ARGS)
	$(PYTHON) -m benches.recovery $(RECOVERY_BENCH_ARGS)
	$(PYTHON) -m benches.standby $(STANDBY_BENCH_ARGS)
	$(PYTHON) -m benches.protocol $(PROTOCOL_BENCH_ARGS)
	$(PYTHON) -m benches.many $(MANY_BENCH_ARGS)

clean:
	rm -rf "$(CARGO_TARGET_DIR)"
