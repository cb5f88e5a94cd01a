# Every target makes its own environment first; `.venv/installed` is stale as soon as a dependency file changes.
PYTHON ?= python3
BIN := .venv/bin
CONTRACT := $(wildcard ../shared/contract)

.PHONY: install demo test test-slow lint up bench
install: .venv/installed       ## the environment, in .venv

demo: .venv/installed          ## prune the built-in model with three methods, cut it once, and show what it cost
	@$(BIN)/espalier sweep --preset demo

test: .venv/installed          ## the whole suite, and the outside contract where it is present
	$(BIN)/python -m pytest -n 2 --dist loadfile tests $(CONTRACT)

test-slow: .venv/installed     ## what takes minutes: real models, kill tests
	$(BIN)/python -m pytest tests -m slow

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

up: .venv/installed            ## Prefect's server and worker, and MLflow, on loopback
	@$(BIN)/espalier up

bench: .venv/installed
	$(BIN)/python -m bench

.venv/installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Espalier needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
