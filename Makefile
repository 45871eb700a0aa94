# make demo   set up, then send a study through a node and show what comes out
# make test   set up, then check and test everything
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
JOBS ?= 3
BENCH ?= $(filter-out __init__ page rounds,$(basename $(notdir $(wildcard tests/benchmarks/*.py))))
SOAK_MINUTES ?= 30
SOAK_KILLS ?= 200
FUZZ_OBJECTS ?= 20000
FUZZ_SEEDS ?= 1,2,3,4

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-peers demo serve test lint unit bench scale fuzz soak constraints audit clean

help:
	@echo "make demo          a study through a node to an archive (ARGS='--keep', '--out DIR')"
	@echo "make test          lint and all tests, with real peers where Debian has them"
	@echo "make unit          the tests alone (ARGS='tests/unit -k settings', JOBS=0 for one after another)"
	@echo "make serve         run a node here (ARGS='--json'); settings from echonode.toml"
	@echo "make lint          ruff and mypy"
	@echo "make bench         all benchmarks, and docs/benchmarks.md of their figures (BENCH=receive)"
	@echo "make scale         what a hospital, a network and a country need: docs/scale.md (ARGS='--clips 80 --show')"
	@echo "make fuzz          broken objects through intake and reading (FUZZ_OBJECTS=, FUZZ_SEEDS=)"
	@echo "make soak          half an hour of load with faults, then crashes and 200 kills (SOAK_MINUTES=)"
	@echo "make constraints   lock setup.cfg's packages with hashes (UPGRADE=1 for newer versions)"
	@echo "make audit         are vulnerabilities known in the locked packages? 3: nobody can be asked"
	@echo "make clean         remove what was made here, .venv too"

setup:
	@deploy/setup.sh

setup-dev:
	@deploy/setup.sh --dev

setup-peers:
	@deploy/setup.sh --dev --peers

demo: setup
	@$(BIN)/echonode demo $(ARGS)

serve: setup
	@$(BIN)/echonode serve $(ARGS)

test: setup-peers lint unit

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup-peers
	@for one in $(BENCH); do $(BIN)/python -m tests.benchmarks.$$one $(ARGS) || exit; done
	@$(BIN)/python -m tests.benchmarks.page

scale: setup-dev
	$(BIN)/python -m tests.scale $(ARGS)

fuzz: setup-dev
	$(BIN)/python -m tests.fuzz --objects $(FUZZ_OBJECTS) --seeds $(FUZZ_SEEDS) $(ARGS)

soak: setup-peers
	$(BIN)/python -m tests.faults.soak --minutes $(SOAK_MINUTES) --kills $(SOAK_KILLS) $(ARGS)

LOCK = $(BIN)/uv pip compile setup.cfg --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --quiet $(if $(UPGRADE),--upgrade)

constraints: setup-dev
	$(LOCK) --extra test --extra tools --output-file requirements-dev.lock
	$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock
	$(LOCK) --extra objects --constraint requirements-dev.lock --output-file requirements-objects.lock

audit: setup-dev
	@$(BIN)/python deploy/audit.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
