# Two commands do everything, set-up included:  make run   and   make test
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
PYTHON ?= $(shell .ci/find-python)
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help run test test-long serve lint types contracts format bench soak fuzz mutants ci lock clean system

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

system: # packages of the system that the path gate needs; only root can install them
	@.ci/system-packages

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "ragate needs Python 3.11 or newer: install it (Debian 12: apt-get install python3 python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || $(PYTHON) -m venv --clear $(VENV) # one of another Python stands there
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: system $(READY) ## the gateway with embedded defaults and a simulated site (ONCE=1: end after the story)
	@$(BIN)/python -m gateway run $(if $(ONCE),--once)

test: system $(READY) ## the whole fast suite
	$(BIN)/python -m pytest tests -n $(JOBS)

test-long: system $(READY) ## the tests that take more than ten seconds each: minutes
	$(BIN)/python -m pytest tests -n $(JOBS) -m long

lint: $(READY) ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

contracts: $(READY) ## who may import whom
	$(BIN)/lint-imports

format: $(READY) ## rewrite in the house style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

bench: system $(READY) ## measure the promises, side by side with what a site has today (run alone; root)
	$(BIN)/python -m tests.bench

.PHONY: compose-check
compose-check: system $(READY) ## compose/: its files, and its commands in network namespaces instead of containers
	$(BIN)/python -m pytest tests/composed -m ""

soak: system $(READY) ## minutes of mixed load, kills and restarts (SECONDS=300)
	SECONDS=$(or $(SECONDS),300) $(BIN)/python -m pytest tests/soak -m soak -s

.PHONY: chaos
chaos: system $(READY) ## kills of gateway, agent and KubeArmor during 5,000 random verdicts (VERDICTS=, SEED=): some minutes
	VERDICTS=$(VERDICTS) SEED=$(SEED) $(BIN)/python -m tests.chaos

$(VENV)/.fuzz-ready: requirements-fuzz.lock $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@touch $@

fuzz: $(VENV)/.fuzz-ready ## every decoder: guided by coverage (SECONDS=600 in all), then properties with a large budget
	found=0; $(BIN)/python -m tests.fuzz.guided --seconds $(or $(SECONDS),600) --jobs $(JOBS) || found=1; \
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/fuzz -m fuzz --hypothesis-show-statistics || found=1; \
	exit $$found

mutants: $(READY) ## change the law in every small way and see that its tests notice: half an hour
	$(BIN)/python -m tests.mutation --jobs $(JOBS)

.PHONY: quirks
quirks: system $(READY) ## ignore each of KubeArmor's quirks in turn and see that its tests notice: a third of an hour
	$(BIN)/python -m tests.quirks --jobs $(JOBS)

ci: ## what CI runs
	.ci/run

lock: ## write both locks anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group dev pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group fuzz -o requirements-fuzz.lock

clean: ## remove what was made here
	rm -rf $(VENV) .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
