# Every target makes its own virtual environment in .venv when that is missing.
#
#   make demo                      the whole way on a real grocery log, then serves until Ctrl-C
#   make demo ARGS=--no-serve      the same, and ends
#   make test                      the default tests: no cluster, no network, about two minutes
#   make test-all                  those, and the ones that start Ray or take longer
#   make lint types                format, lint and type checks
#   make bench-core                meta-gradients a second beside other libraries (about 20 minutes)
#   make evaluate-retail DATA=dir  the support-size curves on Online Retail II (a folder you have)

PYTHON ?= python3
# For example PIP_ARGS="--index-url URL" where packages come from a mirror.
PIP_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
# Made last, so that an interrupted installation starts again.
INSTALLED := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint types format bench-core evaluate-retail clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(INSTALLED)

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raymeta needs Python 3.11 or newer; name one with: make PYTHON=python3.11" >&2; exit 2; }
	@echo "Installing raymeta and its packages into $(VENV) (once; some minutes) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: the version that the rest is resolved against is then settled
	$(PIP) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(PIP) -e '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(INSTALLED)
	$(BIN)/raymeta demo $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto $(ARGS)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto $(ARGS)
	@# one at a time: each of these may fill the machine
	$(BIN)/python -m pytest -q -m 'ray or slow' $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

bench-core: $(INSTALLED)
	$(BIN)/python tests/benchmarks/core/run.py $(ARGS)

evaluate-retail: $(INSTALLED)
	@test -n "$(DATA)" || { echo "Name the folder of Online Retail II: make evaluate-retail DATA=folder" >&2; exit 2; }
	$(BIN)/raymeta prepare online-retail --path "$(DATA)" --out runs/online-retail/data --overwrite
	$(BIN)/raymeta evaluate tune_configs/experiments/online_retail.yaml --data runs/online-retail/data --folds 5 --out runs/online-retail/report $(ARGS)
	$(BIN)/raymeta evaluate tune_configs/experiments/online_retail_time.yaml --data runs/online-retail/data --folds 1 --out runs/online-retail/report-time $(ARGS)

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
