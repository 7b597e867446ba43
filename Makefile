# losa: every command of the project. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= mnist
STORE ?= runs/demo/$(DATA).zarr
SWEEP ?= configs/sweep/grid.yaml
OUT ?= runs/sweep
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-video test test-slow test-faults test-gpu test-zarr check fmt lint types imports sweep bench pareto tasks clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## Make the virtual environment (about 6 GB: torch comes with CUDA)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "losa needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo 'no virtual environment could be made: on Debian and Ubuntu, apt install python3-venv'; exit 1; }
	@echo 'installing into $(VENV): about 6 GB, some minutes'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,bench,dev]'
	touch $(INSTALLED)

demo: setup  ## Run the main job on real images (DATA=mnist, textile, or a folder of yours)
	$(BIN)/python -m demo --data '$(DATA)'

demo-video: setup  ## Render clips whose class is how they move, and find it by mixing space and time
	$(BIN)/python -m benchmarks demo_video

test: setup  ## Run the tests (under 10 minutes on two cores)
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: setup  ## Run the tests that take minutes or gigabytes
	$(BIN)/python -m pytest -q -m slow

test-faults: setup  ## Run the whole of the fault tests and write benchmarks/results/faults-*.json
	$(BIN)/python -m pytest -q -m faults

test-gpu: setup  ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

test-zarr:  ## Run the store's tests on the newest zarr (PYTHON=python3.12 or newer)
	.venv-zarr/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv-zarr
	.venv-zarr/bin/python -m pip install --quiet --disable-pip-version-check --upgrade zarr numpy jaxtyping beartype pydantic pyyaml pytest pytest-timeout hypothesis google-crc32c h5py
	.venv-zarr/bin/python -m pytest -q tests/store tests/faults/test_f9_golden.py

check: lint types imports test  ## Everything that must hold before a change lands

fmt: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup  ## Check style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup  ## Check types
	$(BIN)/mypy

imports: setup  ## Check that imports point down
	$(BIN)/lint-imports

sweep: setup  ## Train a grid on a store and make its page (STORE= SWEEP= OUT=)
	$(BIN)/losa sweep --store '$(STORE)' --config '$(SWEEP)' --out '$(OUT)' || test $$? -eq 8
	@told=$$($(BIN)/losa report '$(OUT)') && $(BIN)/python -c 'import json, sys; told = json.loads(sys.argv[1]); print("page   ", told["page"]); print("winner ", told["command"])' "$$told"

bench: setup  ## Run the benchmarks and write benchmarks/results/
	$(BIN)/python -m benchmarks reader
	$(BIN)/python -m benchmarks sequential
	$(BIN)/python -m benchmarks writing
	$(BIN)/python -m benchmarks memory
	$(BIN)/python -m benchmarks opening
	$(BIN)/python -m benchmarks mixing
	$(BIN)/python -m benchmarks verifying
	$(BIN)/python -m benchmarks int8
	$(BIN)/python -m benchmarks tasks

pareto: setup  ## Draw accuracy against what it costs, by every way to adapt (hours; resumes)
	$(BIN)/python -m benchmarks pareto

clean:  ## Remove caches and what the demo made; keep the environment
	rm -rf runs/demo runs/video .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
