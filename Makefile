# fpx. `make run` shows it working, `make test` tests it; both set up all they need on Debian 12 with Swift 6.3.

SHELL := /bin/bash
SWIFT ?= swift
BUILD := .build/release
OUT ?= dist

# What the engine, the tests and the models need from Debian.
PACKAGES := libnuma-dev pkg-config gcc g++ binutils make spin valgrind

# What `make run` measures: the engine, two floors, and some of the ways others do it.
DEMO := floor,memory,lane,shard,lock_xadd,shared_cas,limit_atomic,sysv_semaphore,lane_limit_100,shared_cas_limit_100,lane_refusal,steal_stopped,membarrier_stopped

.PHONY: run test setup build bench benchmarks torture model numa tsan library lint format golden clean help

run: build ## Build, run the benchmark's short demo, and say what to type next
	@$(BUILD)/Bench --quick --only $(DEMO)
	@printf '\n%s\n' 'That was the engine on this machine. Next:' \
	  '  make test                       all tests (about 10 minutes)' \
	  '  make bench                      the whole benchmark; results in $(OUT)/bench.json and .svg' \
	  '  make torture SECONDS=600        kill, stop and migrate processes while an oracle counts' \
	  '  make library                    libfpxadmission.so, header and pkg-config file in $(OUT)/' \
	  '  $(BUILD)/Bench --list           what there is to measure'

test: setup build-tests ## All tests; closes on the test runner's own summary
	models/run.sh short
	$(BUILD)/Torture --seconds 60 --kills 200 --operations 100000000 --seed $${SEED:-$$RANDOM}
	$(BUILD)/Torture --seconds 10 --kills 30 --operations 0 --locked --seed $${SEED:-$$RANDOM}
	$(MAKE) --no-print-directory tsan
	GLIBC_TUNABLES=glibc.pthread.rseq=0 $(SWIFT) test --skip-build --filter 'PoolTests|HandleTests|ModelTests|ConcurrencyTests'
	$(SWIFT) test --skip-build

.PHONY: build-tests
build-tests: build lint
	$(SWIFT) build --build-tests

build: setup
	$(SWIFT) build -c release --product Bench
	$(SWIFT) build -c release --product Torture
	$(SWIFT) build -c release --product FastPath

setup: ## Install what is missing of the Debian packages
	@missing=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(PACKAGES) 2>&1 | \
	  sed -nE 's/^dpkg-query: no packages found matching (.*)/\1/p; /^installed /d; s/^[a-z-]+ ([^ ]+)$$/\1/p'); \
	if [ -n "$$missing" ]; then \
	  if [ $$(id -u) = 0 ]; then sudo=; else sudo=sudo; fi; \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@$(SWIFT) --version 2>&1 | grep -qE 'Swift version (6\.[3-9]|[7-9])' || \
	  { echo "found $$($(SWIFT) --version 2>&1 | head -1), expected Swift 6.3 or later in PATH" >&2; exit 1; }

bench: build ## The whole benchmark: table, $(OUT)/bench.json, $(OUT)/bench.svg
	@mkdir -p $(OUT)
	$(BUILD)/Bench --json $(OUT)/bench.json --svg $(OUT)/bench.svg

benchmarks: setup ## One operation each, with thresholds (ordo-one/benchmark)
	$(SWIFT) package --package-path Benchmarks benchmark

torture: build ## SECONDS=600 SEED=1: the long form, 10,000 kills
	$(BUILD)/Torture --seconds $(or $(SECONDS),600) --kills 10000 --operations 0 --seed $(or $(SEED),$$RANDOM)

model: setup ## The Promela models, long form (up to an hour)
	models/run.sh long

numa: setup ## Placement on memory nodes and CPU hot-plug, on an emulated two-node machine
	Tests/NUMA/run.sh

tsan: setup ## The fallback under the thread sanitizer
	$(SWIFT) test --sanitize=thread --scratch-path .build/tsan --filter 'ConcurrencyTests'

library: setup ## libfpxadmission.so, header and pkg-config file in $(OUT)/
	Integrations/c/build-library.sh $(OUT)

lint: ## Format and style
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Benchmarks

format: ## Format in place
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Benchmarks

golden: build ## Accept the fast path's present instruction counts
	FPX_UPDATE_GOLDEN=1 $(SWIFT) test --filter GoldenTests

clean:
	rm -rf .build Benchmarks/.build $(OUT)

help:
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14
