# Everything that a person or a CI runner does here. `make help` lists it.

SHELL := /bin/bash
MOCHA := node_modules/.bin/mocha --no-config --timeout 20000 --reporter build/test/helpers/reporter.js
SOURCES := $(shell find vmm devices bench/ladder -name '*.ts') bench/c-flags.ts bench/harness.ts bench/stamp.ts bench/statistics.ts bench/table.ts $(wildcard vmm/bundle/*.mjs vmm/oci/front/* vmm/jail/launcher/*) package.json $(shell find guest/kernel guest/init -type f)

# What has failed halfway is not there, and is made again.
.DELETE_ON_ERROR:

.PHONY: help setup test-setup build guest rootfs pack api-docs boot lab doctor check types lint format imports test test-unit test-kvm test-boot test-jail test-vtx test-vfio soak firecracker-sdk oci-validation cri fuzz fuzz-coverage mutants bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

setup: node_modules/.package-lock.json ## install missing Debian and npm packages
	@guest/packages

test-setup: node_modules/.package-lock.json ## the same, and what the tests use: Docker, chromium and others
	@guest/packages --tests

node_modules/.package-lock.json: package-lock.json
	@npm ci --no-audit --no-fund
	@touch $@

build: dist/vmlet.js ## bundle the program: dist/vmlet.js

dist/vmlet.js: $(SOURCES) node_modules/.package-lock.json
	@node vmm/bundle/bundle.mjs

guest: setup ## build the guest kernel (once, minutes), init and initramfs
	@$(MAKE) --no-print-directory -C guest

rootfs: setup ## a root disk with busybox in guest/out/root.ext4; ROOTFS="--debian" for others
	@mkdir -p guest/out
	@guest/rootfs/build $(ROOTFS) guest/out/root.ext4

pack: build types ## the npm package: vmlet-VERSION.tgz
	@npm pack --ignore-scripts

api-docs: node_modules/.package-lock.json ## pages of the API in build/api-docs
	@node_modules/.bin/typedoc --logLevel Warn

boot: ## boot a guest: a shell, or a description of itself without a terminal; builds what that needs
	@guest/prepare dist/vmlet.js boot --quiet

lab: setup build ## a shell in the lab, an emulated host with AMD-V; LAB="--cpu intel" for VT-x
	@guest/packages --lab
	@$(MAKE) --no-print-directory -C guest kernel init
	@dist/vmlet.js lab $(LAB)

doctor: build ## what this host can do
	@dist/vmlet.js doctor

check: types lint format imports ## types, lint, format, who may import whom

types: node_modules/.package-lock.json
	@node_modules/.bin/tsc -p .
	@node_modules/.bin/tsc -p docs/examples

lint: node_modules/.package-lock.json
	@node_modules/.bin/eslint .

format: node_modules/.package-lock.json
	@node_modules/.bin/prettier --check --log-level warn .

imports: types
	@$(MOCHA) build/test/unit/imports.test.js

test: test-setup guest build types ## all tests but those on VT-x; fails if no guest could be booted anywhere
	@node build/test/run.js

test-unit: test-setup types ## tests that need neither a guest nor a KVM
	@$(MOCHA) 'build/test/{unit,fuzz}/**/*.test.js'

test-kvm: test-setup build types ## guests of a few bytes on this host's /dev/kvm
	@$(MOCHA) 'build/test/kvm/**/*.test.js'

test-boot: test-setup guest build types ## real kernels, on this host or in the lab
	@$(MOCHA) --reporter-option need-boot=1 'build/test/boot/**/*.test.js'

# Those that start `vmlet boot`; the others would run as they do in the lanes above.
JAIL_TESTS = $(shell grep -lE 'guestRunner|bootWords|VMLET boot|PROGRAM.* "?boot|"boot", "--(quiet|config)' test/{kvm,boot}/*.test.ts)

test-jail: test-setup guest build types ## kvm and boot once more, with each `vmlet boot` in the jail; JAIL=strict for that mode
	@VMLET_TEST_JAIL=$(or $(JAIL),on) $(MOCHA) --reporter-option need-boot=1 $(JAIL_TESTS:%.ts=build/%.js)

test-vtx: setup guest build types ## real kernels on an interpreted VT-x; minutes
	@guest/packages --intel
	@$(MOCHA) --reporter-option need-boot=1,announce=1 'build/test/vtx/**/*.test.js'

test-vfio: setup guest build types ## devices of a lab with an IOMMU, assigned to guests; minutes
	@$(MOCHA) --reporter-option announce=1 'build/test/vfio/**/*.test.js'

soak: setup guest build types ## guests saved and restored, monitors killed 1,000 times, containers 200; half an hour; SOAK=N for N times
	@SOAK=$(SOAK) $(MOCHA) --reporter-option announce=1 'build/test/soak/**/*.test.js'

firecracker-sdk: setup guest build ## firecracker-go-sdk's own tests against vmlet-firecracker; root, Go, minutes
	@.ci/firecracker-sdk

oci-validation: setup guest build ## The OCI runtime validation suite against vmlet-runtime; root, Go, minutes on a host that does nothing else
	@.ci/oci-validation

cri: setup guest build ## a pod by crictl and a containerd of its own, and critest; root, Go, containerd, minutes
	@.ci/cri

fuzz: types ## the guest's side at random, for longer than the tests do; FUZZ="--seed N --iters N"
	@node build/test/fuzz/run.js $(FUZZ)

fuzz-coverage: types ## every parser, by what its inputs reach; SEARCH="--target NAME --seed N --inputs N --keep"
	@node --expose-gc build/test/fuzz/coverage/run.js $(SEARCH)

mutants: types ## change one operator at random, see whether a test notices; MUTANTS="--seed N --count N --only PATH"
	@node build/test/mutants/run.js $(MUTANTS)

bench: setup guest build types ## measure; see bench/README.md; LADDER="--quick --yes" for the ladder
	@node build/bench/run.js
	@mkdir -p bench/results
	@dist/vmlet.js bench --json bench/results/ladder.json --html bench/results/ladder.html $(LADDER)

clean: ## remove what was built here; the cache of kernels stays
	rm -rf build dist guest/out bench/results bench/out
