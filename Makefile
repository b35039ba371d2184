# fpx. `make run` shows it working, `make test` tests it; both set up all they need on Debian 12 with Swift 6.3.

SHELL := /bin/bash
SWIFT ?= swift
BUILD := .build/release
# The programs that are installed carry their Swift with them: the host that runs them needs no toolchain.
DAEMON := .build/static/release
STATIC = $(SWIFT) build -c release --static-swift-stdlib --scratch-path .build/static
OUT ?= dist
PREFIX ?= /usr/local
# All issues once more before the summary of a long test run.
ISSUES_LAST = awk '/ Test run with [0-9]+ test/ {summary = $$0; next} {print; fflush()} / recorded an issue/ {issues = issues $$0 "\n"} \
  END {printf "%s", issues; if (summary) print summary}'
# Network namespaces are root's to make.
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),sudo)

# What building needs from Debian, and what the tests, models and end-to-end tests need besides.
PACKAGES := libnuma-dev liburcu-dev libedit-dev libsqlite3-dev pkg-config gcc g++ binutils make
PROXIES := nginx-core nginx-dev libnginx-mod-stream haproxy
SHARING := etcd-server etcd-client
TEST_PACKAGES := spin valgrind openssl curl sqlite3 tmux zsh fish nghttp2-client python3-jwt python3-cryptography $(PROXIES) $(SHARING) iproute2 iptables strace faketime systemd util-linux e2fsprogs

.PHONY: run demo demo-fabric test field setup setup-tests build daemon integrations install bench benchmarks bench-hooks bench-authority crash torture storm simulate chaos model numa fresh fuzz tsan library lint format golden clean help

run: daemon library ## Build and run fpxd on its defaults in .fpx, with a first look and what to type next
	@Integrations/demo/run.sh $(abspath $(DAEMON)) $(abspath $(OUT))

demo: daemon integrations ## fpxd, nginx and HAProxy under one licence of 3 sessions, with kills and reloads
	@Integrations/demo/demo.sh $(abspath $(DAEMON)) $(abspath $(OUT))

demo-fabric: daemon integrations ## Three units that lend one another seats over three etcd, under traffic, one killed
	@.ci/packages $(SHARING)
	@Integrations/demo/fabric.sh $(abspath $(DAEMON)) $(abspath $(OUT))

test: setup-tests build-tests integrations ## All tests; closes on the test runner's own summary
	models/run.sh short
	$(BUILD)/Torture --seconds 60 --kills 200 --operations 100000000 --seed $${SEED:-$$RANDOM}
	$(BUILD)/Torture --seconds 10 --kills 30 --operations 0 --locked --seed $${SEED:-$$RANDOM}
	$(MAKE) --no-print-directory tsan
	SWIFT=$(SWIFT) Tests/Fuzz/run.sh 5
	GLIBC_TUNABLES=glibc.pthread.rseq=0 $(SWIFT) test --skip-build --filter 'AdmissionTests.(PoolTests|HandleTests|ModelTests|ConcurrencyTests|KeeperTests)'
	$(AS_ROOT) .build/debug/Chaos --runs 5 --seed $${SEED:-$$RANDOM}
	set -o pipefail; FPX_DIST=$(abspath $(OUT)) $(SWIFT) test --skip-build --no-parallel 2>&1 | $(ISSUES_LAST)

field: setup-tests build-tests integrations ## Situations from the field alone, as a table: situation, expected, found
	@mkdir -p $(OUT) && rm -f $(OUT)/field.tsv
	FPX_FIELD=$(abspath $(OUT))/field.tsv FPX_DIST=$(abspath $(OUT)) $(SWIFT) test --skip-build --no-parallel --filter Field; \
	  status=$$?; (printf 'point\tsituation\texpected\tfound\tas expected\n'; sort -V $(OUT)/field.tsv) | column -t -s $$'\t'; exit $$status

.PHONY: build-tests
build-tests: build lint
	$(SWIFT) build --build-tests

build: setup
	$(SWIFT) build -c release --product Bench
	$(SWIFT) build -c release --product Torture
	$(SWIFT) build -c release --product FastPath

daemon: setup ## fpxd, fpx and fpx-authority
	for product in fpxd fpx fpx-authority; do $(STATIC) --product $$product || exit; done

setup: ## Install what is missing of the Debian packages
	@.ci/packages $(PACKAGES)
	@$(SWIFT) --version 2>&1 | grep -qE 'Swift version (6\.[3-9]|[7-9])' || \
	  { echo "found $$($(SWIFT) --version 2>&1 | head -1), expected Swift 6.3 or later in PATH" >&2; exit 1; }

setup-tests: setup
	@.ci/packages $(TEST_PACKAGES)

bench: build ## The whole benchmark: table, $(OUT)/bench.json, $(OUT)/bench.svg
	@mkdir -p $(OUT)
	$(BUILD)/Bench --json $(OUT)/bench.json --svg $(OUT)/bench.svg

benchmarks: setup ## One operation each, with thresholds (ordo-one/benchmark)
	$(SWIFT) package --package-path Benchmarks benchmark

torture: build ## SECONDS=600 SEED=1: the long form, 10,000 kills
	$(BUILD)/Torture --seconds $(or $(SECONDS),600) --kills 10000 --operations 0 --seed $(or $(SEED),$$RANDOM)

storm: setup-tests integrations ## SECONDS=600 SEED=1: daemon, nginx and HAProxy killed, reloaded and changed under load
	STORM_SECONDS=$(or $(SECONDS),600) $(if $(SEED),SEED=$(SEED)) FPX_DIST=$(abspath $(OUT)) $(SWIFT) test --filter EndToEndTests.EndToEnd/Storm

simulate: setup ## SEEDS=1000 SEED=1: seat sharing under faults, on virtual clocks, network and etcd
	$(SWIFT) build -c release --product Simulator
	$(BUILD)/Simulator --seeds $(or $(SEEDS),1000) --seed $(or $(SEED),1)
	$(BUILD)/Simulator --seeds $(or $(SEEDS),1000) --seed $(or $(SEED),1) --usurpers 1 --seconds 90

chaos: setup-tests build-tests ## RUNS=100 SEED=1, as root: real fpxd and etcd in network namespaces under faults, sums of caps checked
	$(AS_ROOT) .build/debug/Chaos --runs $(or $(RUNS),100) --seed $(or $(SEED),1)

model: setup-tests ## The Promela models, long form (up to an hour)
	models/run.sh long

numa: setup ## Placement on memory nodes and CPU hot-plug, on an emulated two-node machine
	Tests/NUMA/run.sh

fresh: ## As root: make run and the README's quick starts on a fresh Debian 12 (a chroot), 15 minutes or more
	Tests/Fresh/run.sh

bench-authority: daemon ## UNITS=10000 RENEWALS=20000: renewals a second over TLS, and how the database grows
	$(STATIC) --product AuthorityLoad
	@Benchmarks/authority/run.sh $(abspath $(DAEMON))

bench-hooks: daemon integrations ## What the hooks cost nginx and HAProxy, beside the proxies' own limiters
	@Benchmarks/hooks/run.sh $(abspath $(DAEMON)) $(abspath $(OUT))

crash: build-tests ## KILLS=200: daemon and authority killed at every step of a renewal
	FPX_KILLS=$(or $(KILLS),200) $(SWIFT) test --skip-build --filter EndToEndTests.EndToEnd/LicenseCrash

fuzz: setup ## SECONDS=60 KEEP=1: coverage-guided fuzzing of each reader; KEEP renews the corpus
	SWIFT=$(SWIFT) KEEP=$(or $(KEEP),0) Tests/Fuzz/run.sh $(or $(SECONDS),60)

tsan: setup ## The fallback under the thread sanitizer
	FPX_ONLY=engine $(SWIFT) test --sanitize=thread --scratch-path .build/tsan --filter 'ConcurrencyTests'

library: setup ## libfpxadmission.so, header and pkg-config file in $(OUT)/; DEBUG=1: one that aborts on a release too many
	Integrations/c/build-library.sh $(OUT)

integrations: library ## The nginx modules in $(OUT)/lib/nginx
	@.ci/packages $(PROXIES)
	Integrations/nginx/build.sh $(OUT)

# Where the files go into a package (DESTDIR), ldconfig is for the package's own script.
install: daemon integrations install-docs ## PREFIX=/usr/local, DESTDIR=: programs, library, nginx modules, completions, unit, /etc/fpx
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/lib/nginx
	install -s -m 755 $(DAEMON)/fpxd $(DAEMON)/fpx $(DAEMON)/fpx-authority $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(OUT)/include/fpxadmission.h $(DESTDIR)$(PREFIX)/include
	cp -P $(OUT)/lib/libfpxadmission.so* $(DESTDIR)$(PREFIX)/lib
	install -m 644 $(OUT)/lib/nginx/*.so $(DESTDIR)$(PREFIX)/lib/nginx
	install -m 644 $(OUT)/lib/pkgconfig/fpxadmission.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)/etc/systemd/system $(DESTDIR)/etc/fpx/keys
	$(DAEMON)/fpx --generate-completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/fpx
	$(DAEMON)/fpx --generate-completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fpx
	$(DAEMON)/fpx --generate-completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fpx.fish
	sed 's|/usr/local|$(PREFIX)|' Integrations/systemd/fpxd.service >$(DESTDIR)/etc/systemd/system/fpxd.service
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

# The documents and what they link to, in the same places to one another as here, so that every link holds there too.
DOCUMENTS := README.md CHANGELOG.md docs models/README.md $(wildcard Integrations/haproxy/* Integrations/nginx/*.conf) \
  Integrations/c/example.c Sources/CAdmission/include/fpxadmission.h Sources/Admission/PoolEngine.swift

.PHONY: install-docs
install-docs:
	install -d $(DESTDIR)$(PREFIX)/share/doc/fpx
	cp -r --parents $(DOCUMENTS) $(DESTDIR)$(PREFIX)/share/doc/fpx
	sed -i 's|/usr/local|$(PREFIX)|' $(DESTDIR)$(PREFIX)/share/doc/fpx/Integrations/nginx/fpx-modules.conf

lint: ## Format and style
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Benchmarks

format: ## Format in place
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests Benchmarks/Package.swift Benchmarks/Benchmarks

golden: build ## Accept the fast path's present instruction counts
	FPX_UPDATE_GOLDEN=1 $(SWIFT) test --filter GoldenTests

clean:
	rm -rf .build .fpx Benchmarks/.build $(OUT)

help:
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14
