# Every target sets up what it needs in .venv on first use.

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip --disable-pip-version-check --quiet

OUT    ?= data/nsp-$(JUDGE)
SOURCE ?= data/film/shots.csv
JUDGE  ?= film
FLAGS  ?= $(if $(filter data/film/shots.csv,$(SOURCE)),--test 0.1 --split-by clip --unit-size 8 --units-per-shard 8)

# Told before anything is set up or fetched.
ifneq ($(and $(filter shards,$(MAKECMDGOALS)),$(filter claude,$(JUDGE))),)
ifeq ($(strip $(ANTHROPIC_API_KEY) $(ANTHROPIC_AUTH_TOKEN) $(filter --estimate,$(FLAGS))),)
$(error JUDGE=claude needs a key for the Claude API, and ANTHROPIC_API_KEY is not set; set it, or use JUDGE=film)
endif
endif

.PHONY: help shards test train bench clean
.DEFAULT_GOAL := help

help:
	@echo "make shards   build the sample dataset in $(OUT)   (OUT= SOURCE= JUDGE= FLAGS= override)"
	@echo "make test     lint, types and all tests"
	@echo "make bench    the benchmarks of docs/performance.md"
	@echo "make clean    remove .venv and caches, keep data"

$(VENV)/base: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a minute, once) ..."
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/test: $(VENV)/base
	@$(PIP) install --constraint constraints.txt --editable '.[train,test]'
	@touch $@

shards: $(VENV)/base
	@$(if $(filter data/film/shots.csv,$(SOURCE)),$(RUN) pipelines/fetch_film.py data/film)
	@$(RUN) pipelines/build_nsp.py --source $(SOURCE) --out $(OUT) --judge $(JUDGE) $(FLAGS)

test: $(VENV)/test
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pytest -n 2 --dist loadfile

train:
	@echo "make train: this version builds datasets; it has no trainer yet" >&2; exit 2

bench: $(VENV)/test
	@$(RUN) -m benchmarks

clean:
	rm -rf $(VENV) .venv-interop build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
