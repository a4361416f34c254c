# `make test` installs what the machine lacks and runs everything. `make help` lists the rest.

.DEFAULT_GOAL := help
.PHONY: help build test tools lint race load zitadel grpc client e2e full chaos bench fuzz clean

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/sessiongate, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/sessiongate ./cmd/sessiongate

# One after the other, also with -j: every step wants all cores, and tests that measure moments want them to themselves.
test: ## everything: lint, race tests, load, a second provider, gRPC, a real browser
	@$(MAKE) --no-print-directory tools
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory race
	@$(MAKE) --no-print-directory load
	@$(MAKE) --no-print-directory zitadel
	@$(MAKE) --no-print-directory grpc
	@$(MAKE) --no-print-directory client
	@$(MAKE) --no-print-directory e2e

tools: ## install what the tests need (Debian packages, npm packages)
	@scripts/install-tools

lint: ## gofmt, go vet, staticcheck, govulncheck
	@scripts/lint

race: ## go test -race, with crashes and faults of the real binary
	go test -race -timeout 8m $$(go list ./... | grep -v /e2e/load)

load: ## attacks by load on the real binary, with the machine to itself
	go test -timeout 5m -count=1 ./e2e/load

zitadel: ## the real binary against a second real provider
	cd e2e/zitadel && go test -race -timeout 3m -count=1 ./...

grpc: ## the real binary between a gRPC client and a gRPC server
	cd e2e/grpc && go test -race -timeout 3m -count=1 ./...

client: ## the browser helper's own tests
	cd client && npm test --silent

e2e: ## the real binary, a certified provider and Chromium
	cd e2e && npm test --silent

full: ## the long forms: a million mixed requests, 235 expiries at three replicas, a million sessions through a file, bodies of 5 GB, every row of the matrix
	SESSIONGATE_MIXING=1000000 go test -v -timeout 60m -count=1 ./e2e/mixing
	SESSIONGATE_REPLICAS=full go test -v -timeout 30m -count=1 ./e2e/replicas
	SESSIONGATE_LOAD=full go test -v -timeout 30m -count=1 ./e2e/load
	SESSIONGATE_CYCLES=1000000 go test -v -timeout 60m -count=1 -run StaysSmall ./session/boltstore
	SESSIONGATE_MATRIX=full go test -timeout 30m -count=1 -run Matrix ./proxy

CHAOSTIME ?= 15m

chaos: ## gateways, store and provider killed, stopped and restarted at random, for CHAOSTIME (15m) each
	SESSIONGATE_CHAOS=$(CHAOSTIME) go test -race -v -timeout 180m -count=1 ./e2e/chaos

bench: ## benchmarks of the request path, the cold path and the login
	go test -run '^$$' -bench . -benchmem ./...

FUZZTIME ?= 1m

fuzz: ## every fuzz target for FUZZTIME (1m)
	@scripts/fuzz $(FUZZTIME)

clean: ## remove what was built
	rm -rf bin e2e/node_modules examples/react/node_modules examples/react/dist
