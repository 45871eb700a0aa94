# make demo   set up, then send a study through a node and show what comes out
# make test   set up, then check and test everything
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint types unit bench constraints clean

help:
	@echo "make demo          a study through a node to an archive (ARGS='--keep', '--out DIR')"
	@echo "make test          lint, types and all tests, with real peers where Debian has them"
	@echo "make serve         run a node here (ARGS='--json'); settings from echonode.toml"
	@echo "make lint          ruff and mypy"
	@echo "make bench         benchmarks"
	@echo "make constraints   pin the versions that are installed now"
	@echo "make clean         remove what was made here, .venv too"

setup:
	@deploy/setup.sh

setup-test:
	@deploy/setup.sh --test

demo: setup
	@$(BIN)/echonode demo $(ARGS)

serve: setup
	@$(BIN)/echonode serve $(ARGS)

test: setup-test lint unit

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup-test
	$(BIN)/pytest $(ARGS)

bench: setup-test
	@$(BIN)/python -m tests.benchmarks.receive $(ARGS)

constraints: setup-test
	$(BIN)/python deploy/constraints.py >constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
