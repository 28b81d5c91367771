# `make demo` and `make test` do all the set-up on a fresh machine: Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SLOW_READY := $(VENV)/.ready-slow
WORKERS ?= 2

.PHONY: demo test slow lint clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mednovelty needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Tests of what cannot be installed here are skipped, and `make slow` says so at its end. Pages are opened in
# Chromium, which comes from the system: apt install chromium.
$(SLOW_READY): $(READY)
	for extra in browser-test slicer-test notebook; do \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,$$extra]" \
			|| echo "[$$extra] was not installed: its tests will be skipped" >&2; \
	done
	touch $@

demo: $(READY)
	$(BIN)/mednovelty demo demo --overwrite

lint: $(READY)
	$(BIN)/ruff check mednovelty tests pipelines
	$(BIN)/ruff format --check mednovelty tests pipelines
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m 'not slow' -n $(WORKERS) --dist loadfile

slow: $(SLOW_READY)
	$(BIN)/pytest -m slow -rs

clean:
	rm -rf $(VENV) demo build *.egg-info
