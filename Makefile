# SPDX-License-Identifier: Apache-2.0

GO         ?= go
FUZZTIME   ?= 20s
BENCHTIME  ?= 200ms
BENCH      ?= .
HANDSHAKES ?= 1000000
PLATFORMS  ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build test soak lint fuzz bench dist clean

# The tools have a modfile of their own, so that nobody who imports the module
# gets them. "go get -modfile=tools/go.mod -tool NAME@VERSION" changes one.
TOOL := $(GO) tool -modfile=$(CURDIR)/tools/go.mod

# Folders with a module of their own, so that who imports this one does not get what
# they need. What is done in each is done in the root first.
MODULES := . bench examples/grpc examples/quic

# Modules of programs that tests run, and build themselves: they have no tests of their
# own, and "go test -race" would build all that they need once more to say so.
PROGRAMS := internal/stepca/server internal/cfsslserver/server

# The same for Vault, which is vetted alone: its two small programs do not repay what
# looking at all that Vault needs would take.
VAULT := internal/vaultserver/server

# Without git, or without a tag, the program says what Go stamped into it.
VERSION := $(shell git describe --tags --match 'v*' --dirty 2>/dev/null)
COMMIT  := $(shell git describe --always --abbrev=40 --dirty --exclude '*' 2>/dev/null)
STAMP   := $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X main.commit=$(COMMIT))
# Man pages are dated by the commit, so that two builds of it are equal.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  FUZZTIME=$(FUZZTIME) BENCHTIME=$(BENCHTIME) BENCH=$(BENCH) HANDSHAKES=$(HANDSHAKES) PLATFORMS=\"$(PLATFORMS)\""

build: ## build/keyturn, a static binary for this machine
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(STAMP)' -o build/keyturn ./cmd/keyturn

# The race detector allocates in places of its own: what allocates nothing is
# looked at without it. So are ten thousand handshakes, years of renewals, a hundred
# thousand forged events and eight hundred kills, which would take it long, and how soon
# all is well after a link was broken.
test: ## run all tests with the race detector; needs Go and gcc, no root
	@cc=$$($(GO) env CC); command -v $${cc%% *} >/dev/null || \
		{ echo "the race detector needs a C compiler, and $$cc is not installed; run: apt-get install gcc" >&2; exit 1; }
	$(GO) run ./internal/gotest -run 'Alloc|WhileReplacing' .
	$(GO) run ./internal/gotest -run 'TestYear|TestFiveYears' ./manager
	$(GO) run ./internal/gotest -run TestHostileEvents ./replica
	$(GO) run ./internal/gotest -run 'TestKilled$$' -timeout 50m ./e2e/killed
	$(GO) run ./internal/gotest -run TestPartitions ./e2e/partition
	$(GO) build -o build/gotest ./internal/gotest
	for module in $(MODULES); do \
		(cd $$module && CGO_ENABLED=1 $(CURDIR)/build/gotest -race -timeout 50m ./...); \
	done

# Whatever looks at the variable tries more, or for longer.
soak: ## the tests of random faults, for longer: more kills, more power cuts, more forgeries
	KEYTURN_SOAK=1 $(GO) run ./internal/gotest -timeout 5h \
		$$(grep -rl --include='*_test.go' KEYTURN_SOAK . | xargs -n 1 dirname | sort -u)

lint: ## vet, staticcheck, gofumpt, tidy modfiles, fresh generated files
	for module in $(MODULES) $(PROGRAMS); do \
		(cd $$module && $(GO) vet ./... && $(TOOL) staticcheck ./...); \
	done
	cd $(VAULT) && $(GO) vet -tags minimal ./...
	@echo '$(TOOL) gofumpt -l .'
	@files=$$($(TOOL) gofumpt -l .); [ -z "$$files" ] || \
		{ echo "not formatted; run: $(TOOL) gofumpt -w ." >&2; echo "$$files" >&2; exit 1; }
	for module in $(MODULES) $(PROGRAMS) $(VAULT) tools; do (cd $$module && $(GO) mod tidy -diff); done
	@if grep -rq --include='*.go' '^//go:generate ' .; then \
		echo '$(GO) generate ./...'; \
		state() { find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum; }; \
		before=$$(state); $(GO) generate ./...; \
		diff <(echo "$$before") <(state) || { echo 'these files were stale, and are fresh now: commit them' >&2; exit 1; }; \
	fi

# "go test" fuzzes one target at a time.
fuzz: ## fuzz every target for FUZZTIME
	@$(GO) test -list '^Fuzz' ./... | \
		awk '/^Fuzz/ { found[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, found[i]; n = 0 }' | \
		while read -r package target; do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
		done

bench: ## run the benchmarks that match BENCH, each for BENCHTIME, then the table with the peers
	@packages=$$($(GO) test -list '^Benchmark' ./... | awk '/^Benchmark/ { n++ } /^ok/ { if (n) print $$2; n = 0 }'); \
		$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -timeout 20m $$packages
	$(GO) run -C bench . -handshakes $(HANDSHAKES)

dist: build ## static binaries for PLATFORMS, completions and man pages in dist/
	rm -rf dist && mkdir -p dist/completions dist/man
	for platform in $(PLATFORMS); do \
		os=$${platform%/*} arch=$${platform#*/}; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch \
			$(GO) build -trimpath -ldflags '-s -w $(STAMP)' -o dist/keyturn-$$os-$$arch ./cmd/keyturn; \
	done
	build/keyturn completion bash > dist/completions/keyturn.bash
	build/keyturn completion zsh > dist/completions/_keyturn
	build/keyturn completion fish > dist/completions/keyturn.fish
	build/keyturn man dist/man
	cd dist && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort | \
		xargs $$(command -v sha256sum || echo shasum -a 256) > SHA256SUMS

clean: ## remove build/ and dist/
	rm -rf build dist
