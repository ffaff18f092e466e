# Two commands: `make demo` and `make test`. Each sets up what it needs: Python packages (.venv), npm packages (node_modules).
# No Node.js here?  `make demo NODE=pip` brings one along from a Python wheel.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
NODE ?= system
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test fuzz gas lint format contracts contracts-test contracts-check chaos soundness lock clean node-present

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.installed ## Python environment only

# The whole environment is remade when the lock changes, so it never holds what the lock does not.
$(VENV)/.installed: requirements.lock requirements-node.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Seawall needs Python 3.11 or later; found: $$($(PYTHON) --version 2>&1 || echo none). Try: make PYTHON=/path/to/python3.11 ..." >&2; exit 3; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@if [ "$(NODE)" = pip ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

node-present: $(VENV)/.installed
	@command -v npm >/dev/null && command -v node >/dev/null || { \
	  if [ "$(NODE)" = pip ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock; \
	  else echo "Seawall needs Node.js 18 or later (node and npm) for anvil and the Solidity compiler. Install it, or run this again with NODE=pip to take it from a Python wheel into $(VENV)." >&2; exit 3; fi; }

node_modules/.installed: package.json package-lock.json | node-present
	npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

demo: $(VENV)/.installed node-present ## the main job: one policy file carries a position through the crash of 2020-03-12
	$(BIN)/seawall demo $(ARGS)

contracts: $(VENV)/.installed node_modules/.installed ## compile the Solidity sources into contracts/artifacts
	$(BIN)/seawall contracts build

contracts-test: node_modules/.installed ## the Solidity tests
	$(BIN)/seawall contracts test

# The analysers pin other versions of our libraries, so they have an environment of their own.
$(VENV)-check/.installed: requirements-check.lock | $(VENV)/.installed
	$(PYTHON) -m venv --clear $(VENV)-check
	$(VENV)-check/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-check.lock
	@touch $@

contracts-check: $(VENV)/.installed $(VENV)-check/.installed node_modules/.installed ## prove and attack the contracts; ARGS=--short for minutes instead of an hour
	SEAWALL_CHECK_TOOLS=$(VENV)-check $(BIN)/python -m contracts.check $(ARGS)

test: $(VENV)/.installed node_modules/.installed contracts-test ## everything that must hold, in short form
	$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.installed node_modules/.installed ## kill every service at every point, the long form
	SEAWALL_CHAOS_ROUNDS=200 SEAWALL_CHAOS_CROWD=10000 $(BIN)/python -m pytest tests/chaos -m "chaos or not chaos" $(ARGS)

fuzz: $(VENV)/.installed ## the policy engine against the independent evaluator, the long form (minutes)
	SEAWALL_FUZZ=1 $(BIN)/python -m pytest tests/policies/test_against_naive.py $(ARGS)

soundness: $(VENV)/.installed node_modules/.installed ## the bundler's cheap pass against the full trace, 10,000 made-up contracts (half an hour)
	SEAWALL_SOUNDNESS=$${SEAWALL_SOUNDNESS:-10000} $(BIN)/python -m pytest tests/bundler/erc7562/test_soundness.py -s $(ARGS)

gas: $(VENV)/.installed node_modules/.installed ## what operations cost on chain, beside other accounts; fails when it got worse
	$(BIN)/python -m benchmarks.gas.accounts $(ARGS)

lint: $(VENV)/.installed node_modules/.installed ## ruff, mypy --strict, import directions, forge fmt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/seawall contracts fmt --check

format: $(VENV)/.installed node_modules/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/seawall contracts fmt

lock: ## write the requirements' locks anew (needs pip-tools)
	printf 'hatchling\neditables\n' | pip-compile --quiet --generate-hashes --extra dev --extra demo --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate -o requirements.lock pyproject.toml -
	printf 'slither-analyzer\nhalmos\nsetuptools<81\n' | pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate -o requirements-check.lock -

clean: ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-check node_modules out cache contracts/out contracts/cache demo-out .mypy_cache .ruff_cache .pytest_cache
