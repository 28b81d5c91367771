# `make demo` and `make test` do all the set-up on a fresh machine: Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

.PHONY: demo test slow lint clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mednovelty needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(READY)
	$(BIN)/mednovelty demo demo --overwrite

lint: $(READY)
	$(BIN)/ruff check mednovelty tests pipelines
	$(BIN)/ruff format --check mednovelty tests pipelines
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m 'not slow' -n $(WORKERS) --dist loadfile

slow: $(READY)
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) demo build *.egg-info
