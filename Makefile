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
PYTEST := $(KEEP_BYTECODE) $(VENV)/bin/pytest -q
DOCS ?=
QUESTION ?=
TRACE ?= $(wildcard ../shared/data/mooncake_conversation_trace.jsonl)
ARGS ?=

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
setup: $(VENV)/.installed ## Make the virtual environment from the lock file

.PHONY: prerequisites
prerequisites: setup ## Install the system packages that are missing (as root on Debian), or say which
	@$(E2E) -m local_cluster prerequisites --install

.PHONY: tools
tools: prerequisites ## Build the cluster's programs into the cache (Kubernetes, etcd, KWOK, Karpenter, Helm, CoreDNS)
	@$(E2E) -m local_cluster build

.PHONY: generate
generate: setup ## Write the CRDs and the API reference from the pydantic models
	@$(RUN) -m flotilla_operator.api.generate

.PHONY: lock
lock: setup ## Resolve the dependencies anew into requirements/
	@for set in "dev --all-extras" "operator --extra operator" "runtime --extra runtime --extra index"; do \
	  set -- $$set; name=$$1; shift; \
	  $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --custom-compile-command "make lock" $$([ $$name = dev ] || echo "--constraint requirements/dev.txt") \
	    $$@ pyproject.toml --output-file requirements/$$name.txt; done

.PHONY: lock-engine
lock-engine: setup ## Resolve the CPU engine's packages anew into e2e/engine/requirements/
	@cd e2e/engine/requirements && for set in "engine --override overrides.txt" "models --no-deps"; do \
	  set -- $$set; name=$$1; shift; \
	  $(CURDIR)/$(VENV)/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --generate-hashes --no-annotate --custom-compile-command "make lock-engine" \
	    $$@ $$name.in --output-file $$name.txt; done

.PHONY: lint
lint: setup ## ruff, strict types and the dependency rules of the house
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

.PHONY: format
format: setup ## Format the code
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

.PHONY: test-unit
test-unit: setup ## Unit tests: no server, under a minute
	@$(PYTEST) -n 2 -m "not apiserver and not services and not cluster"

.PHONY: test-apiserver
test-apiserver: tools ## Tests against a real API server with KWOK nodes
	@$(PYTEST) -n 3 --dist worksteal -m apiserver

.PHONY: test-services
test-services: prerequisites ## Tests against real Redis, HAProxy, Milvus Lite and vLLM on this machine
	@$(PYTEST) -n 2 --dist worksteal -m services

.PHONY: test-cluster
test-cluster: tools ## End to end: a real kubelet, the real model
	@$(PYTEST) -m cluster

.PHONY: test
test: tools lint test-unit test-apiserver test-services test-cluster ## Everything; installs what it needs

.PHONY: cluster-up
cluster-up: setup ## Start the local cluster (kind where Docker and kind are present, else the embedded one)
	@$(E2E) -m local_cluster up

.PHONY: cluster-down
cluster-down: setup ## Take the local cluster down; nothing of it is left
	@$(E2E) -m local_cluster down

.PHONY: cluster-status
cluster-status: setup ## What runs, and where the kubeconfig is
	@$(E2E) -m local_cluster status

.PHONY: demo
demo: setup ## The main job: three kinds, real documents, a real model, three answers with sources
	@$(E2E) -m local_cluster prerequisites --demo --install
	@$(E2E) -m demo $(if $(DOCS),--documents "$(DOCS)") $(if $(QUESTION),--question "$(QUESTION)")

.PHONY: demo-down
demo-down: setup ## Remove the demo's namespace and the chart
	@$(E2E) -m demo --down

.PHONY: bench-retrieval-demo
bench-retrieval-demo: prerequisites ## Is the right page among the first five? 30 questions over the demo's pages
	@$(E2E) -m retrieval_demo $(ARGS)

.PHONY: bench-placement
bench-placement: setup ## Plan 15,000 groups on 640 nodes; small clusters against an exact solver
	@$(E2E) -m placement $(ARGS)

.PHONY: bench-router
bench-router: prerequisites ## TRACE=file: what the router adds to a request, and prefix hits (without a trace: ARGS=--no-trace)
	@$(E2E) -m router $(if $(filter --no-trace,$(ARGS)),,$(if $(TRACE),--trace "$(TRACE)")) $(ARGS)

.PHONY: bench-streams
bench-streams: tools ## 200 open streams while the set scales, rolls, and loses a pod and a node
	@$(E2E) -m streams $(ARGS)

.PHONY: bench-scale
bench-scale: tools ## 1,000 pods through the operator and through a bare client, side by side
	@$(E2E) -m scale $(ARGS)

# The one that may lack its trace comes last.
BENCHES := placement scale streams retrieval-demo router

.PHONY: bench
bench: ## TRACE=file: every benchmark, one JSON object each; goes on after one that fails and then fails too
	@failed=; for name in $(BENCHES); do echo "== $$name"; \
	  $(MAKE) --no-print-directory bench-$$name || failed="$$failed $$name"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }
