# From a fresh clone: `make serve` runs regproxy, `make test` runs its tests.
#
# Variables: PYTHON  the interpreter that makes the virtual environment
#            ARGS    more arguments for `make serve`, as in ARGS="--config my.toml"
#            TESTS   what `make test` runs, as in TESTS=tests.model
#            TRIAL   more arguments for trial, as in TRIAL="-j 2"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?= tests
TRIAL ?=

BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help serve test coverage lint format docs bench clean

help:
	@echo 'make serve     run regproxy on 127.0.0.1:5000 (ARGS="--config FILE" for more)'
	@echo 'make test      run the tests (TESTS=tests.model for a part of them)'
	@echo 'make coverage  run them and say what they do not reach'
	@echo 'make lint      ruff, mypy and the news fragments'
	@echo 'make format    let ruff rewrite what it can'
	@echo 'make docs      build docs/_build/html, warnings are errors'
	@echo 'make bench     compare with nginx and docker-registry (minutes)'
	@echo 'make clean     remove the virtual environment and everything built'

# One stamp for each set of dependencies; they are renewed when the metadata change.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.serve

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.test $(VENV)/.serve

# twistd keeps what it found under twisted/plugins/ in dropin.cache: looked up anew before a start.
serve: $(VENV)/.serve
	@$(BIN)/python -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
	exec $(BIN)/twistd -n --pidfile= regproxy $(ARGS)

test: $(VENV)/.test
	$(BIN)/trial $(TRIAL) $(TESTS)

coverage: $(VENV)/.dev
	$(BIN)/python -m coverage run $(BIN)/trial $(TESTS)
	$(BIN)/python -m coverage report

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	.ci/news-fragments

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -b html -W --keep-going docs docs/_build/html

bench: $(VENV)/.serve
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .hypothesis .mypy_cache .ruff_cache .coverage docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
