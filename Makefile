# `make run`: the whole pipeline on the demo data; `make test`: the whole test suite. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint types lock clean

run: .venv/ready
	@$(BIN)/python -m stages.check
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@$(BIN)/python -m stages.report

test: .venv/ready
	@$(BIN)/python -m pytest -q

lint: .venv/ready
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: .venv/ready
	@$(BIN)/mypy

# constraints.txt names no CPU or CUDA build of torch, so pip takes whichever the machine's index offers
lock:
	uv lock && uv export --quiet --no-hashes --no-emit-project --all-extras --no-annotate --no-header \
		| grep -v -E '^(nvidia-|cuda-|triton)' | sed -E 's/^torch==([0-9.]+).*/torch==\1/' > constraints.txt
	rm uv.lock

clean:
	rm -rf data models .cache metrics/plots

.venv/ready: pyproject.toml constraints.txt requirements-no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "setting up .venv (once, about two minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install --quiet --no-deps -r requirements-no-deps.txt
	@touch .venv/ready
