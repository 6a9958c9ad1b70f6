# make run    shows devices at work; needs neither root nor a virtual machine
# make test   everything; installs what it needs by itself
# make help   the rest

GO ?= go
CACHE := $(or $(VFIOUSER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vfiouser)
STATICCHECK_VERSION := v0.7.0
STATICCHECK := $(CACHE)/staticcheck-$(STATICCHECK_VERSION)/staticcheck

FUZZTIME ?= 1m

# All packages but those that take QEMU.
units = $$($(GO) list ./... | grep -v -e /test/guest -e /test/qtest)

# netpoll's variant keeps a pointer in the kernel's packed, and so misaligned, epoll_event.
NETPOLL := -gcflags=github.com/panjf2000/gnet/v2/pkg/netpoll=-d=checkptr=0

# The commit is part of the program, if git can tell it: the bench suite records it.
STAMP = $(shell git rev-parse HEAD > /dev/null 2>&1 && echo -buildvcs=auto)

.PHONY: help build run test test-unit test-fuzz test-guest durability bench bench-go fuzz fuzz-list cover lint compiler lspci nbd browser clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\)\(%\{0,1\}\):.*## /\1\2\t/p' $(MAKEFILE_LIST) | sed 's/^fuzz-%/fuzz-NAME/' | expand -t 12

build: ## build bin/vfu
	$(GO) build $(STAMP) -o bin/vfu ./cmd/vfu

run: build ## build, then write, read and verify through an NVMe device and a network card
	bin/vfu demo

test: lint test-unit test-fuzz test-guest ## all checks and tests

# Both variants of the poller; and the tests that count allocations once more without the
# race detector, which allocates by itself.
test-unit: compiler lspci nbd browser ## the tests that need no guest
	$(GO) test -race $(units)
	$(GO) test -race -tags poll_opt $(NETPOLL) ./engine/... ./client/...
	$(GO) test -run Alloc $(units)

test-fuzz: ## every fuzz target for a moment (test-unit runs the inputs that are stored)
	$(GO) run ./fuzz/cmd/fuzzrun -time 2s -shrink 10s -coverage=false

# (-v: it shows which guests ran and for how long, or why they are skipped)
test-guest: ## the tests with QEMU, without and with a guest
	$(GO) test -v -count=1 -p 1 -timeout 20m ./test/qtest/... ./test/guest/...

durability: ## kill servers 200 times, under guests too, cut the power 50 times, and check what was promised
	VFIOUSER_DURABILITY=200 $(GO) test -count=1 -v -timeout 20m -run TestDurable ./cmd/vfu
	VFIOUSER_SERVER_KILLS=200 VFIOUSER_POWER_CUTS=50 $(GO) test -count=1 -v -timeout 90m -run 'TestServerKills|TestPowerCut' ./test/guest

# The commit is in the binary, and from there in the results.
bench: build ## measure every layer beside its limits, some minutes; the report is bin/bench/report.html
	bin/vfu bench --out bin/bench

bench-go: ## the benchmarks of all packages, with go test, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem $(units)

fuzz: ## fuzz every target for FUZZTIME (default 1m) and say what it found and covers
	$(GO) run ./fuzz/cmd/fuzzrun -time $(FUZZTIME)

fuzz-%: ## fuzz one of them: make fuzz-FuzzVersion FUZZTIME=10m
	$(GO) run ./fuzz/cmd/fuzzrun -time $(FUZZTIME) -only '^$*$$'

fuzz-list: ## say what each fuzz target checks
	@$(GO) run ./fuzz/cmd/fuzzrun -list

cover: ## what tests and stored inputs cover, by package, against what they have to
	$(GO) run ./fuzz/cmd/covermarks ./codec=95 ./dma=95 ./irq=95 ./pci=95 ./devices/...=85

lint: $(STATICCHECK) ## gofmt, go vet for every platform and build tag, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags poll_opt ./engine/... ./client/...
	GOARCH=arm64 $(GO) vet ./...
	$(STATICCHECK) ./...
	$(STATICCHECK) -tags poll_opt ./engine/... ./client/...

$(STATICCHECK):
	GOBIN=$(@D) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

# The race detector needs a C compiler.
compiler:
	@echo '#include <stdlib.h>' | $$($(GO) env CC) -E - > /dev/null 2>&1 || { \
	  command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ] || \
	    { echo "The race detector needs a C compiler: install gcc and libc6-dev." >&2; exit 1; }; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	    apt-get -q install -y --no-install-recommends gcc libc6-dev; }

# It decodes our configuration spaces. Without it, and without the means to get it, those tests
# say that they are skipped.
lspci:
	@PATH="$$PATH:/usr/sbin:/sbin" command -v lspci > /dev/null || { \
	  command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ] || \
	    { echo "There is no lspci: install pciutils to check what it decodes." >&2; exit 0; }; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	    apt-get -q install -y --no-install-recommends pciutils; }

# The NBD servers that the nbd backend is tested with, likewise.
nbd:
	@command -v nbdkit > /dev/null && command -v qemu-nbd > /dev/null || { \
	  command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ] || \
	    { echo "There is no nbdkit or qemu-nbd: install nbdkit and qemu-utils to test with them." >&2; exit 0; }; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	    apt-get -q install -y --no-install-recommends nbdkit qemu-utils; }

# The browser that the page of the bench suite is looked at with, likewise.
browser:
	@command -v chromium > /dev/null || { \
	  command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ] || \
	    { echo "There is no chromium: install it to have the report of vfu bench looked at." >&2; exit 0; }; \
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive \
	    apt-get -q install -y --no-install-recommends chromium; }

clean: ## remove what make built (the cache folder stays)
	rm -rf bin
