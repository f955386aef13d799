# make help lists the targets. Each installs what it needs into .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= tiny
DATA_ROOT ?=
SEEDS ?=
RUNS ?= runs/main_table
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install check test test-faults test-matrix trust mutants fuzz audit lock install-locked conformance docs bench bench-gpu reproduce-table check-experiments clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: $(VENV)/.installed  ## install biqa and its tested dependencies into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

check: install  ## formatting, lint, types, import rules
	$(BIN)/ruff format --check biqa tests benchmarks docs
	$(BIN)/ruff check biqa tests benchmarks docs
	$(BIN)/pyright
	$(BIN)/lint-imports

# one thread a worker: more threads than cores only wait for each other, and the suite takes twice as long
test: install  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: install  ## the long campaigns: 200 kills, runs of several processes, launchers, ...; docs/trust.md counts what came of them
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m faults -q

test-matrix: install  ## the tests with the lowest and the newest lightning, transformers and peft, and other Pythons: ARGS="highest -- tests/models"
	$(BIN)/python tests/matrix.py $(ARGS)

trust: install  ## every campaign of faults once more; writes docs/trust.json and docs/trust.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'faults or trust' --record-trust -q; code=$$?; $(MAKE) docs; exit $$code

fuzz: install  ## 20,000 mutated pictures and label files; ARGS="engine=atheris inputs=100000" for those that coverage guides (pip install 'biqa[fuzz]')
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/campaign.py $(ARGS)

audit:  ## known holes in the tested set (pip-audit); exit code 3 where its database cannot be reached
	$(PYTHON) -m docs.audit

lock:  ## requirements.lock: the tested set with the SHA-256 of each file, for this platform
	$(PYTHON) -m docs.lock

install-locked:  ## .venv as install has it, where no file may differ from requirements.lock; torch alone goes by its version
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.installed

mutants: $(VENV)/.mutants-installed  ## would the tests notice broken code? checkpoints, sampler, figures; ARGS="correlation --show" for one group
	$(BIN)/python tests/mutants.py $(ARGS)

$(VENV)/.mutants-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutants]'
	@touch $@

conformance: install  ## every backbone against every promise; writes the table in the README
	$(BIN)/python tests/models/conformance.py

docs: install  ## docs/options.md, commands.md and trust.md out of the code and of what campaigns have counted
	$(BIN)/python -m docs.generate

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

reproduce-table: install  ## the paper's tables: MODEL=owl2 DATA_ROOT=/data SEEDS=0,1,2 ARGS="tuning=lora"; without arguments the stand-in, in minutes
	$(BIN)/python -m biqa.reproduce model=$(MODEL) runs=$(RUNS) $(if $(DATA_ROOT),data_root=$(DATA_ROOT)) $(if $(SEEDS),seeds=[$(SEEDS)]) $(ARGS)

check-experiments: install  ## are the figures of experiments/ those that the runs here give, and that were expected?
	$(BIN)/python -m biqa.experiments

clean:  ## remove caches and build output; runs and data stay
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
