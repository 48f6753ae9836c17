# The verbs people type. `make case-study` and `make test` set up .venv themselves and leave the tree clean.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
UV := $(shell command -v uv 2>/dev/null)
WORKERS ?= 2
EXPORT := --quiet --all-extras --no-extra bench --no-emit-project --no-annotate --no-header

# Programs compiled once are kept: most of a small run is compilation (the folder is safe to delete).
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/jax-cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES ?= none
export TF_CPP_MIN_LOG_LEVEL ?= 3

# Where the public data sets lie, if anywhere; without them notebook 15 and its tests do with synthetic twins.
export REC_TRANSFER_DATA ?= $(wildcard $(abspath ../shared/data))

.DEFAULT_GOAL := help
.PHONY: help case-study quick test test-portable unit notebooks-check evidence limits platform lab notebooks student data real-data bench text lint lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# The lock is whole (--no-deps): resolving it again, pip would meet `coverage[toml]`, which pytest-cov asks for, look for
# its newest release instead of the one pinned as `coverage`, and refuse that for want of a hash.
$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python >= 3.11 is needed, {v[0]}.{v[1]} found: make PYTHON=/path/to/python3.11")'
	@echo "setting up .venv from requirements.lock: about 90 s, once"
ifneq ($(UV),)
	@uv venv --quiet --clear --python $(PYTHON) .venv
	@uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@uv pip install --quiet --python $(BIN)/python --no-deps -e .
else
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
endif
	@touch $@

case-study: $(STAMP)  ## the case study on the committed data: table, figures, executed notebook (under build/)
	@$(BIN)/python tools/run_notebooks.py case-study

quick: $(STAMP) lint  ## in a minute: lint, the unit tests that are no slow ones, notebook 00
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" tests
	$(NBVAL) notebooks/00_tour.ipynb

test: $(STAMP) unit notebooks-check  ## unit tests with coverage, then every notebook under nbval

# Work is stolen, not dealt: a worker keeps to neighbouring tests, so that what a file sets up is mostly set up once.
unit: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90 tests

# One process per notebook file: splitting a notebook over workers breaks its kernel. Where public data are at hand,
# the notebook that reads them runs once more without.
NBVAL := $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 300
notebooks-check: $(STAMP)
	$(NBVAL) -n $(WORKERS) --dist loadfile notebooks
	$(if $(REC_TRANSFER_DATA),REC_TRANSFER_DATA= $(NBVAL) notebooks/15_real_data.ipynb)

test-portable: $(STAMP)  ## `make test` once more on the oldest instruction set, to prove the tolerances
	XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/jax-cache-portable $(MAKE) test

evidence: $(STAMP)  ## share of the oracle's lift, films to books, bent and linear worlds, five seeds (ALL=1: six directions)
	@$(BIN)/python experiments/evidence.py $(if $(ALL),--all)

platform: $(STAMP)  ## the case study's new users: the oracle and the best method, per user, in three directions
	@$(BIN)/python experiments/case_study.py

limits: $(STAMP)  ## what holds transfer back: the best methods given the truth of one part after the other
	@$(BIN)/python experiments/limits.py

real-data: $(STAMP)  ## the papers' protocols on real people (FOLDER= SOURCE= TARGET= SHARED= for a pair of your own)
	@$(BIN)/python experiments/real_data.py $(if $(FOLDER),--folder "$(FOLDER)" --source $(SOURCE) --target $(TARGET) --shared $(SHARED))

# PyTorch first and alone: its build for the CPU is the right one, and RecBole would draw another.
TORCH ?= torch==2.13.0
PEERS := build/bench-venv
$(PEERS)/installed: benchmarks/peers/requirements.txt
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH) && \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt && \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1 cornac==3.0.1 && \
		touch $@ || echo "not all peers could be installed: the benchmark runs with those that were"

bench: $(STAMP) $(PEERS)/installed  ## epochs and runs against PyTorch, RecBole, Cornac; on a quiet machine (SIZES="S M", PARTS="epochs growth whole log memory")
	@$(BIN)/python benchmarks/bench.py $(if $(SIZES),--sizes $(SIZES)) $(if $(PARTS),--parts $(PARTS))

lab: $(STAMP)  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

notebooks: $(STAMP)  ## re-execute every notebook in place and refresh figures/ (ONLY=09 for one)
	$(BIN)/python tools/run_notebooks.py store $(ONLY)

student: $(STAMP)  ## copies without the solutions, for a class, under build/student (ONLY=09 for one)
	@$(BIN)/python tools/student_copies.py $(ONLY)

data: $(STAMP)  ## write data/*.csv anew from the stated key
	$(BIN)/python tools/make_data.py

text: $(STAMP)  ## notebooks as editable text under build/text; `make notebooks` folds newer text back in
	@mkdir -p build/text
	@for book in notebooks/$(ONLY)*.ipynb; do \
		$(BIN)/jupytext --quiet --to py:percent -o build/text/$$(basename $$book .ipynb).py $$book; done

lint: $(STAMP)  ## ruff: style and formatting; mypy: names, calls and signatures of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --cache-dir build/mypy

lock:  ## resolve dependencies again: requirements.lock (hashed), requirements.txt (for environment.yml)
	@test -n "$(UV)" || { $(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install --quiet uv; }
	@mkdir -p build
	PATH="$(CURDIR)/build/uv/bin:$$PATH" uv export $(EXPORT) -o build/requirements.lock
	PATH="$(CURDIR)/build/uv/bin:$$PATH" uv export $(EXPORT) --no-hashes -o build/requirements.txt
	@for file in requirements.lock requirements.txt; do cmp -s build/$$file $$file || cp build/$$file $$file; done

clean:  ## remove .venv and build/
	rm -rf .venv build .pytest_cache .ruff_cache .coverage
