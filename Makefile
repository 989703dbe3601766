# Flotilla's tasks. `make help` lists them; every task installs what it needs or says what is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Also where the environment says not to: an operator starts in half the processor time with it, and tests start hundreds.
KEEP_BYTECODE := PYTHONDONTWRITEBYTECODE=
E2E := $(KEEP_BYTECODE) PYTHONPATH=e2e:operator:runtime:cli:benchmarks $(RUN)
# Fetches and builds first what its tiers need.
TIERS := $(E2E) -m tiers
# mypy's cache outlives the checkout, as the tools do: a fresh clone is checked in seconds.
CACHE := $(if $(FLOTILLA_CACHE),$(FLOTILLA_CACHE),$(HOME)/.cache/flotilla)
DOCS ?=
QUESTION ?=
TRACE ?= $(wildcard ../shared/data/mooncake_conversation_trace.jsonl)
ARGS ?=
FROM ?=

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-22s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements/dev.txt
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip install --quiet --python $(RUN) --require-hashes -r requirements/dev.txt
	@$(VENV)/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@

.PHONY: setup
setup: $(VENV)/.installed ## Create the virtual environment from the lock file

.PHONY: prerequisites
prerequisites: setup ## Install missing system packages (as root on Debian), or list them
	@$(E2E) -m local_cluster prerequisites --install

.PHONY: tools
tools: prerequisites ## Build the cluster's programs into the cache (Kubernetes, etcd, KWOK, Helm, CoreDNS)
	@$(E2E) -m local_cluster build

.PHONY: generate
generate: setup ## Generate the CRDs and the API reference from the pydantic models, docs/tested.md from the tests
	@$(RUN) -m flotilla_operator.api.generate
	@$(E2E) -m tested_page

.PHONY: lock
lock: setup ## Resolve the dependencies again and write requirements/
	@for set in "dev --all-extras" "operator --extra operator" "runtime --extra runtime --extra index"; do \
	  set -- $$set; name=$$1; shift; \
	  $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --custom-compile-command "make lock" $$([ $$name = dev ] || echo "--constraint requirements/dev.txt") \
	    $$@ pyproject.toml --output-file requirements/$$name.txt; done

.PHONY: lock-engine
lock-engine: setup ## Resolve the CPU engine's packages again and write e2e/engine/requirements/
	@cd e2e/engine/requirements && for set in "engine --override overrides.txt" "models --no-deps"; do \
	  set -- $$set; name=$$1; shift; \
	  $(CURDIR)/$(VENV)/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --generate-hashes --no-annotate --custom-compile-command "make lock-engine" \
	    $$@ $$name.in --output-file $$name.txt; done

.PHONY: lint
lint: setup ## Check style (ruff), types (mypy), the import rules of the packages, and what each verb of a kind may do
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy --cache-dir $(CACHE)/mypy
	@$(VENV)/bin/lint-imports
	@$(E2E) -m pytest -q -p no:cacheprovider operator/tests/house/test_verbs.py

.PHONY: format
format: setup ## Format the code
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

.PHONY: caches
caches: prerequisites ## Fetch and build into the cache what all tests need, the rare ones too
	@$(TIERS) --prepare

.PHONY: test-unit
test-unit: setup ## Run the unit tests: no server, two to four minutes
	@$(TIERS) unit

.PHONY: test-scenes
test-scenes: setup ## Run the scenes: the whole operator on a fake API server and a virtual clock, no server
	@$(TIERS) scenes

.PHONY: test-apiserver
test-apiserver: prerequisites ## Run the tests against a real API server with KWOK nodes
	@$(TIERS) apiserver

.PHONY: test-services
test-services: prerequisites ## Run the tests against real Redis, HAProxy, Milvus Lite and vLLM on this machine
	@$(TIERS) services

.PHONY: test-cluster
test-cluster: prerequisites ## Run the end-to-end tests with a kubelet and a real model
	@$(TIERS) cluster

.PHONY: test
test: prerequisites lint ## Run the tests that every change must pass; print each tier's time beside its budget
	@$(TIERS) unit scenes apiserver services cluster

.PHONY: test-rare
test-rare: prerequisites ## Run the tests that only `make test-all` has
	@$(TIERS) rare

.PHONY: test-all
test-all: prerequisites lint ## Run the same, the rare tests and test-faults; CONTRIBUTING.md says when this is needed
	@$(TIERS) --strict unit scenes apiserver services cluster rare
	@$(E2E) -m seeded_faults
	@$(MAKE) --no-print-directory bench-faults
	@$(MAKE) --no-print-directory bench-strangers

.PHONY: test-faults
test-faults: caches ## Put faults into a copy of the code, one after another; each must make a test fail
	@$(E2E) -m seeded_faults $(ARGS)

.PHONY: upgrade-check
upgrade-check: tools ## FROM=commit: check that an upgrade from that commit changes nothing but what is announced
	@test -n "$(FROM)" || { echo "say which commit to upgrade from: make upgrade-check FROM=COMMIT"; exit 2; }
	@$(E2E) -m upgrade_check $(FROM)

.PHONY: cluster-up
cluster-up: setup ## Start the local cluster (kind where Docker and kind are present, else the embedded one)
	@$(E2E) -m local_cluster up

.PHONY: cluster-down
cluster-down: setup ## Take the local cluster down and remove all its processes and mounts
	@$(E2E) -m local_cluster down

.PHONY: cluster-status
cluster-status: setup ## Show what runs, and where the kubeconfig is
	@$(E2E) -m local_cluster status

.PHONY: demo
demo: setup ## Run all three kinds with real documents and a real model; print three answers with sources
	@$(E2E) -m local_cluster prerequisites --demo --install
	@$(E2E) -m demo $(if $(DOCS),--documents "$(DOCS)") $(if $(QUESTION),--question "$(QUESTION)")

.PHONY: demo-down
demo-down: setup ## Remove the demo's namespace and the chart
	@$(E2E) -m demo --down

.PHONY: bench-retrieval-demo
bench-retrieval-demo: prerequisites ## Measure how often the right page is among the first five, for 30 questions over the demo's pages
	@$(E2E) -m retrieval_demo $(ARGS)

.PHONY: bench-placement
bench-placement: setup ## Plan 15,000 groups on 640 nodes; compare small clusters with an exact solver
	@$(E2E) -m placement $(ARGS)

.PHONY: bench-router
bench-router: prerequisites ## TRACE=file: measure what the router adds to a request, and prefix hits (no trace: ARGS=--no-trace)
	@$(E2E) -m router $(if $(filter --no-trace,$(ARGS)),,$(if $(TRACE),--trace "$(TRACE)")) $(ARGS)

.PHONY: bench-streams
bench-streams: tools ## Keep 200 streams open while the set scales, updates, and loses a pod and a node
	@$(E2E) -m streams $(ARGS)

.PHONY: bench-scale
bench-scale: tools ## Create 1,000 pods by the operator and by a bare client, and compare the times
	@$(E2E) -m scale $(ARGS)

.PHONY: bench-waiting
bench-waiting: tools ## Let 300 sets share 20 nodes: what those cost that wait, and how soon free room is used
	@$(E2E) -m waiting $(ARGS)

.PHONY: bench-many
bench-many: tools ## Create 1,000 objects of all kinds, half of which wait, and measure the operator at rest
	@$(E2E) -m many $(ARGS)

.PHONY: bench-faults
bench-faults: setup ## Play 300 seeded schedules of lost answers, stalled watches, jumping clocks and new leaders
	@$(KEEP_BYTECODE) PYTHONHASHSEED=0 PYTHONPATH=operator:e2e:runtime:cli:benchmarks $(RUN) -m faults $(ARGS)

.PHONY: bench-strangers
bench-strangers: caches ## Play every attack that docs/security.md says is stopped; none may reach its aim
	@$(E2E) -m strangers $(ARGS)

.PHONY: bench-recovery
bench-recovery: prerequisites ## Kill workers, gateways, Redis and models under 100 tasks: what is lost or happens twice
	@$(E2E) -m recovery $(ARGS)

.PHONY: bench-agents
bench-agents: prerequisites ## Run 5,100 small tasks through one gateway and two workers; measure the task store alone
	@$(E2E) -m agents $(ARGS)

.PHONY: bench-budgets
bench-budgets: prerequisites ## Press trees of tasks against each limit, under kills: what does not add up
	@$(E2E) -m budgets $(ARGS)

.PHONY: bench-patterns
bench-patterns: prerequisites ## Do each pattern alone and one call after another, then all under kills: what they gain
	@$(E2E) -m patterns $(ARGS)

.PHONY: bench-isolation
bench-isolation: setup ## Let 1, 10 and 50 tenants ask one model with and without isolateTenants: what its cache still finds
	@$(E2E) -m isolation $(ARGS)

.PHONY: bench-multiplexing
bench-multiplexing: prerequisites ## Put 1, 3 and 10 tasks on each slot of a model, then as many as admission lets: what it carries
	@$(E2E) -m multiplexing $(ARGS)

# The one that may lack its trace comes last.
BENCHES := placement scale waiting many streams recovery agents budgets patterns multiplexing retrieval-demo router

.PHONY: bench
bench: ## TRACE=file: run every benchmark, one JSON object each; a failure does not stop the others
	@failed=; for name in $(BENCHES); do echo "== $$name"; \
	  $(MAKE) --no-print-directory bench-$$name || failed="$$failed $$name"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }
