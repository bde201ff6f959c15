# Every target sets up what it needs in .venv on first use.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
# Errors are told, what pip warns of is not.
PIP    := $(PY) -m pip --disable-pip-version-check -qq
OLD    := error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12

# A judge or a source that is named is of another dataset than that of the drawn world.
WORLD  := $(or $(WORLD),$(if $(strip $(JUDGE)$(SOURCE)),film,shapes))
ifneq ($(and $(filter train,$(MAKECMDGOALS)),$(filter shapes,$(WORLD))),)
ifneq ($(strip $(JUDGE)$(SOURCE)),)
$(error WORLD=shapes has a source and a judge of its own; leave JUDGE and SOURCE out, or take WORLD=film)
endif
OUT    ?= data/nsp-shapes
SOURCE := data/shapes/clips.csv
JUDGE  := given
endif
OUT    ?= data/nsp-$(JUDGE)
RUN    ?= runs/$(WORLD)
STAGES := connector generator sft rl
SOURCE ?= data/film/shots.csv
JUDGE  ?= film
FLAGS  ?=
ROOMS  := common prompts judge shards curation training evaluation pipelines
PYTEST := -n 3 --dist loadfile --no-loadscope-reorder
SAMPLE := $(if $(filter data/film/shots.csv,$(SOURCE)),--test 0.1 --split-by clip --unit-size 8 --units-per-shard 8)
SAMPLE += $(if $(filter data/shapes/clips.csv,$(SOURCE)),--test 0.1 --split-by clip --unit-size 16 --units-per-shard 8)
RECIPE := $(if $(filter film,$(WORLD)),tiny,$(WORLD))
SIZE   := $(if $(filter film,$(WORLD)),--max-frames 17 --size 160x96,--max-frames 9 --size 64x64)

# Told before anything is set up or fetched.
ifneq ($(and $(filter shards,$(MAKECMDGOALS)),$(filter claude,$(JUDGE))),)
ifeq ($(strip $(ANTHROPIC_API_KEY) $(ANTHROPIC_AUTH_TOKEN) $(filter --estimate,$(FLAGS))),)
$(error JUDGE=claude needs a key for the Claude API, and ANTHROPIC_API_KEY is not set; set it, or use JUDGE=film)
endif
endif

.PHONY: help shards train lint test test-fast coverage bench clean
.DEFAULT_GOAL := help

help:
	@echo "make shards   build the sample dataset in $(OUT)   (OUT= SOURCE= JUDGE= override, FLAGS= adds)"
	@echo "make train    train the toy model, stage after stage, into $(RUN)   (WORLD=shapes|film OUT= RUN= override)"
	@echo "make test     lint, types and all tests"
	@echo "make lint     format, lint and types alone"
	@echo "make test-fast   all tests but the slow ones, without lint"
	@echo "make coverage    the same, and the lines of each folder that they run: at least 70 %"
	@echo "make bench    the benchmarks of docs/performance.md"
	@echo "make clean    remove .venv and caches, keep data"

$(VENV)/base: pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(OLD)")'
	@echo "setting up $(VENV), once: what builds datasets, about 95 packages, 1 GB, a minute ..." >&2
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/train: $(VENV)/base
	@echo "adding the trainer to $(VENV), once: about 30 packages, 1.2 GB (more with CUDA), a minute ..." >&2
	@$(PIP) install --constraint constraints.txt --editable '.[train]'
	@touch $@

$(VENV)/test: $(VENV)/train
	@echo "adding what the tests need to $(VENV), once: about 45 packages, 0.4 GB, half a minute ..." >&2
	@$(PIP) install --constraint constraints.txt --editable '.[train,test]'
	@touch $@

shards: $(VENV)/base
	@$(if $(filter data/film/shots.csv,$(SOURCE)),$(PY) pipelines/fetch_film.py data/film)
	@$(if $(filter data/shapes/clips.csv,$(SOURCE)),$(PY) pipelines/make_shapes.py data/shapes)
	@$(VENV)/bin/nextscene build --source $(SOURCE) --out $(OUT) --judge $(JUDGE) $(SAMPLE) $(FLAGS)

lint: $(VENV)/test
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

test: lint
	$(PY) -m pytest $(PYTEST)

test-fast: $(VENV)/test
	$(PY) -m pytest $(PYTEST) -m "not slow"

coverage: $(VENV)/test
	$(PY) -m pytest $(PYTEST) -m "not slow" --cov --cov-report=
	@for room in $(ROOMS); do \
	    printf '%-12s' $$room; \
	    $(PY) -m coverage report --format=total --include="$$room/*" --fail-under=70 || exit $$?; \
	done

train: export OMP_NUM_THREADS := 1  # toy tensors gain nothing by threads, and lose much where others are at work
train: $(VENV)/train
	@test -f $(OUT)/manifest.json || \
	    $(MAKE) --no-print-directory shards OUT=$(OUT) SOURCE=$(SOURCE) JUDGE=$(JUDGE)
	@$(PY) pipelines/make_tiny.py --data $(OUT) --out $(RUN)/tiny --kind $(WORLD)
	@$(PY) pipelines/encode_latents.py --data $(OUT) --ltx $(RUN)/tiny/ltx $(SIZE)
	@for stage in $(STAGES); do \
	    $(PY) pipelines/train.py --stage $$stage --recipe $(RECIPE) --data $(OUT) --out $(RUN) \
	        --qwen $(RUN)/tiny/qwen --ltx $(RUN)/tiny/ltx --resume || exit $$?; \
	done

bench: $(VENV)/test
	@$(PY) -m benchmarks

clean:
	rm -rf $(VENV) .venv-interop build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
