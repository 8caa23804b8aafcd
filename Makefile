# Set-up goes through constraints.txt, also for what builds the package.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: demo test check bench help

demo: $(VENV)/.runtime ## train five methods on digits whose colour leaks the label; leaves runs/demo/report.html
	$(BIN)/evenhand demo

test: $(VENV)/.dev ## run all tests, except those that need a GPU
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/.dev ## lint, format, types, and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## the speed ratios of benchmarks/README.md (run alone; about twenty minutes)
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/edge_step.py
	$(BIN)/python benchmarks/edge_trainer.py
	$(BIN)/python benchmarks/norms.py

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## /make \1\t/' | expand -t 14

# Reinstalled only when what is installed changed. The source itself is installed in place (editable).
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evenhand needs Python 3.11 or newer; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev,offline]'
	@touch $@ $(VENV)/.runtime
