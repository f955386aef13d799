# make help lists the targets. Each installs what it needs into .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= tiny
DATA ?= synthetic
RUNS ?= runs/main_table
SEEDS ?= 0
ARGS ?=
TABLE := experiments/main_table

.DEFAULT_GOAL := help
.PHONY: help install check test test-faults conformance bench bench-gpu reproduce-table clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: $(VENV)/.installed  ## install biqa and its tested dependencies into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

check: install  ## formatting, lint, types, import rules
	$(BIN)/ruff format --check biqa tests benchmarks
	$(BIN)/ruff check biqa tests benchmarks
	$(BIN)/pyright
	$(BIN)/lint-imports

# one thread a worker: more threads than cores only wait for each other, and the suite takes twice as long
test: install  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: install  ## ten runs killed at random steps; each goes on to the same curve and weights
	$(BIN)/python -m pytest -m faults -q tests/test_kills.py

conformance: install  ## every backbone against every promise; writes the table in the README
	$(BIN)/python tests/models/conformance.py

bench: $(VENV)/.bench-installed  ## speed beside TRL, transformers and plain loops, as ratios; ARGS="--only 1 2" for some rows alone
	$(BIN)/python -m benchmarks.speed $(ARGS)
	test -n "$(ARGS)" || $(BIN)/python -m benchmarks.prepare
	test -n "$(ARGS)" || $(BIN)/python -m benchmarks.inside

$(VENV)/.bench-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench-gpu: install  ## cost of training steps and of answers of a 2B to 8B backbone on this machine's GPU: ARGS="--model qwen3_vl"
	$(BIN)/python -m benchmarks.training_steps $(ARGS)
	$(BIN)/python -m benchmarks.gpu_answers $(ARGS)

reproduce-table: install  ## the paper's comparison on this machine: trains, measures, writes experiments/main_table/table.{md,tex,csv}
	$(BIN)/python -m biqa.run sweep=main_table model=$(MODEL) data=$(DATA) seed=$(SEEDS) runs=$(RUNS) ckpt=last $(ARGS)
	$(BIN)/python -m biqa.report runs=$(RUNS) out=$(TABLE)

clean:  ## remove caches and build output; runs and data stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
