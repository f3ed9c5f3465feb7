# Two commands do everything: `make run` and `make test`. Both set up .venv first.
#
# A machine without a GPU can skip a multi-GB download:  make run TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/quickstart.yaml
FOUNDATION_HOME ?= $(CURDIR)/data
TORCH_INDEX ?=
export FOUNDATION_HOME

# pip compiles to bytecode on one core; `compileall` below does it on all of them.
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt
COMPILE = $(VENV)/bin/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true # some packages ship broken templates
ifneq ($(TORCH_INDEX),)
PIP += --extra-index-url $(TORCH_INDEX)
endif

.PHONY: run test test-all lint bench chaos look clean

run: $(VENV)/.run
	$(VENV)/bin/foundation run $(RECIPE)

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m "not slow"

test-all: $(VENV)/.dev
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

chaos: $(VENV)/.dev
	$(VENV)/bin/python -m tests.chaos

bench: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks.first_run

look: $(VENV)/.run
	$(VENV)/bin/foundation look

clean:
	rm -rf $(VENV) data

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# hatchling and editables build this project, setuptools and wheel build DeepSpeed, which comes as source.
$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) hatchling editables setuptools wheel
	$(PIP) --no-build-isolation --editable ".[all]"
	$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --no-build-isolation --editable ".[dev]"
	$(COMPILE)
	touch $@
