# make run | make test | make check | make check-all — `make` alone lists everything.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
DATA_DIR ?= data
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK=1

.DEFAULT_GOAL := help
.PHONY: help run test fmt lint types contracts check check-all check-postgres docs vendor screenshots pictures budget bench system-packages clean inference

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(VENV)/.python: 
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stagerelease needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "→ making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python venv is missing. Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml
	@echo "→ installing stagerelease and what it runs on"
	@$(BIN)/pip install --progress-bar on -q -e '.[postgres]' 'huggingface_hub>=2.4'
	@touch $@

# torch first and exactly pinned, so that no other package brings a different one
$(VENV)/.dev: $(VENV)/.python pyproject.toml
	@echo "→ installing torch (a local CPU wheel, if pip knows one)"
	@$(BIN)/pip install --progress-bar on -q torch==2.13.0
	@echo "→ installing stagerelease with its test tools"
	@$(BIN)/pip install --progress-bar on -q -e '.[dev]'
	@touch $@ $(VENV)/.run

run: $(VENV)/.run ## serve the demo world on http://127.0.0.1:8000 (PORT, DATA_DIR change that)
	@PORT=$(PORT) DATA_DIR=$(DATA_DIR) $(BIN)/stagerelease up --demo

inference: $(VENV)/.run ## install torch, so that models can be asked (large; make run works without)
	@echo "→ installing torch and transformers"
	@$(BIN)/pip install --progress-bar on -q torch==2.13.0
	@$(BIN)/pip install --progress-bar on -q -e '.[postgres,inference]'

test: $(VENV)/.dev ## set up and run the default tests
	$(BIN)/pytest -q -n 2 -m "not e2e"

fmt: $(VENV)/.dev ## format the code
	$(BIN)/ruff format src tests bench tools migrations
	$(BIN)/ruff check --fix src tests bench tools

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff format --check src tests bench tools
	$(BIN)/ruff check src tests bench tools
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## everything a change must pass before it lands

# what speaks to the database over HTTP; the rest of tests/http is about bytes and forms
HTTP_ON_POSTGRES := $(addprefix tests/http/,test_every_route.py test_hub_client.py test_hub_upload.py test_resolve.py)
# what asks nothing of a database that differs: files, headers, documents, the CLI's faces
NOT_ON_POSTGRES := $(addprefix --ignore=,$(wildcard tests/services/*_cli.py) $(addprefix tests/services/test_,\
  demo_checkpoints.py documents.py evidence_import.py hostile_import.py import.py \
  ledger_tampering.py notices.py pull.py replay.py report_contents.py storage.py synthesize.py windows.py))

check-all: $(VENV)/.dev ## the rest: PostgreSQL, nginx, Chromium, Go verifiers, kills, races (under 25 minutes)
	$(BIN)/pytest -q -n 2 -m "not e2e" --db=postgres tests/services $(NOT_ON_POSTGRES) $(HTTP_ON_POSTGRES)
	$(BIN)/pytest -q -n 2 -m "e2e and not alone" tests/services tests/engine
	$(BIN)/pytest -q -n 2 -m e2e --db=postgres tests/services/test_races.py
	$(BIN)/pytest -q -n 2 --dist loadfile -m "e2e and not alone" tests/e2e
	$(BIN)/pytest -q -m "e2e and alone" tests/e2e tests/engine

check-postgres: $(VENV)/.dev ## every test on PostgreSQL, and the mutants of the rules (nightly; an hour)
	$(BIN)/pytest -q -n 2 --db=postgres -m "not e2e"
	$(BIN)/pytest -q -m e2e tests/house

docs: $(VENV)/.dev ## write the generated pages of docs/
	$(BIN)/python tools/print_docs.py

vendor: ## copy what package.json lists into the tree again, with its hashes (npm, network)
	$(PYTHON) tools/vendor.py

pictures: $(VENV)/.dev ## the four pictures of the README, taken anew
	$(BIN)/python tools/pictures.py

screenshots: $(VENV)/.dev ## every page, light and dark, 320 and 1280 px, into build/screenshots
	$(BIN)/pytest -q -m e2e tests/e2e/test_every_look.py --screenshots=build/screenshots

budget: $(VENV)/.dev ## what a first visit to each page costs on a phone, against its budget
	$(BIN)/python tools/budget.py

bench: $(VENV)/.dev ## run the benchmarks; each prints a ratio of two sides measured in one run
	$(BIN)/python bench/authorize.py
	$(BIN)/python bench/download.py
	$(BIN)/python bench/governance.py
	$(BIN)/python bench/inference.py

bench-vllm: $(VENV)/.dev ## our engine against vLLM's CPU wheel (installs it into build/vllm: 3.5 GB)
	$(BIN)/python bench/vllm.py --dtype fp32
	$(BIN)/python bench/vllm.py --dtype bf16

system-packages: ## Debian packages that check-all needs (as root)
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q postgresql nginx golang-go golang-golang-x-mod-dev gettext-base openssl curl wget aria2 chromium

clean: ## remove the environment and caches (never the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
