# Thin targets over compose/install.sh, podctl and the test runner. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help up down clean test check mutants soak image psql chaos bench

PYTHON := .venv/bin/python
PODCTL := .venv/bin/podctl
# The engine, the pods' files and port 443 need root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env)
# The environment's programs first: its tools, and the Node that the njs tests run in.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## List the targets
	@echo 'codepods: browser IDEs that can be put away and brought back'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'make up NODES=2     two node agents        make up DETACH=1    return when the system answers'
	@echo 'make clean YES=1    do not ask             CODEPODS_INSTALL=no make up    install nothing on the system'

up: ## Install what is missing, start everything, open a first pod, print its link
	@compose/install.sh
	@$(AS_ROOT) $(PODCTL) up $(if $(NODES),--nodes $(NODES)) $(if $(filter-out 0 no,$(DETACH)),--detach)

down: ## Stop everything; keep the data
	@$(AS_ROOT) $(PODCTL) down

clean: ## Stop everything and remove the data, after asking
	@$(AS_ROOT) $(PODCTL) clean $(if $(filter-out 0 no,$(YES)),--yes)

test: ## Run the whole suite on the real parts
	@compose/install.sh --with-tests
	@$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m tests.run

check: ## Run the fast gate: format, lint, types, import contracts, unit and property tests
	@compose/install.sh --for-check
	@$(PYTHON) -m tests.run --fast

mutants: ## Break the programs on purpose: what the simulation catches, and after how many steps (ALL=1: and every test, on the real parts)
	@compose/install.sh $(if $(ALL),--with-tests,--for-check)
	@$(PYTHON) -m tests.mutants.hunting
	@$(if $(ALL),$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m tests.mutants)

soak: ## Simulate fleets with new seeds until Ctrl-C (STEPS=n: so many, and then the mutants; SEEDS=n; POSTGRES=1: on PostgreSQL too)
	@compose/install.sh --for-check
	@$(PYTHON) -m tests.sim --seed "$$(date +%s)" --seeds $(or $(SEEDS),0) --until $(or $(STEPS),0) $(if $(POSTGRES),--postgres,$(if $(STEPS),--mutants))

chaos: ## Every fault of the real parts once, then ROUNDS=n rounds (50) of random ones
	@compose/install.sh --for-chaos
	@$(AS_ROOT) env "PATH=$$PATH" CODEPODS_CHAOS=long $(PYTHON) -m pytest -v -n 2 --dist loadfile tests/chaos tests/contract/test_database*.py
	@$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m tests.chaos --rounds $(or $(ROUNDS),50)
	@$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m tests.chaos --rounds $$(( ($(or $(ROUNDS),50) + 1) / 2 )) --faulty-ways
	@$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m tests.chaos --rounds $$(( ($(or $(ROUNDS),50) + 1) / 2 )) --each

bench: ## Measure archives beside tar, zstd, docker and restic (STORE=s3: through an S3 server; QUICK=1; CHECK=1: exit 1 on a missed target)
	@compose/install.sh --for-bench
	@$(AS_ROOT) env "PATH=$$PATH" $(PYTHON) -m bench.archive $(if $(STORE),--store $(STORE)) $(if $(filter-out 0 no,$(QUICK)),--quick) $(if $(filter-out 0 no,$(CHECK)),--check)

image: ## Build the pod image, if its inputs changed, and print its tag
	@compose/install.sh
	@head -n 1 "$${CODEPODS_HOME:-.codepods}/pod_image"

psql: ## Open psql on the local database
	@$(AS_ROOT) $(PODCTL) psql
