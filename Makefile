# The whole interface of this repository; `make` alone lists the targets.
# Needs make and Python 3.11 or newer with venv (Debian, Ubuntu: make, python3-venv). Nothing but system-deps needs root.

# The first Python that is new enough; name another one with `make PYTHON=…`.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$candidate"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
FOR ?= 30s
JOBS ?= 2
SEARCH ?= 20min

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo demo-build test lint types format bench bench-docs docs docs-cli soak system-deps clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z%-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# What is installed is remembered by a stamp, so that only a change of these files installs again.
$(VENV)/.ready-%: pyproject.toml constraints.txt scripts/install.py
	@"$(or $(PYTHON),python3)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		found="$$("$(or $(PYTHON),python3)" --version 2>/dev/null || echo missing)"; \
		echo "make: Python 3.11 or newer is needed; $(or $(PYTHON),python3) here is: $$found." >&2; \
		echo "      Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" scripts/install.py $(VENV) $(filter-out run,$(subst -, ,$*))
	@touch $@

demo: $(VENV)/.ready-run  ## watch a real model triage this machine's log (FOR=30s)
	@$(BIN)/python -m scripts.demo --for $(FOR)

demo-build: $(VENV)/.ready-run  ## search longer for the demo's model: pruning and distilling, two thread counts (SEARCH=20min)
	@$(BIN)/skerry build examples/log-triage --time $(SEARCH) --prune --threads 1,2

# Half of the tests wait rather than compute, so two at a time halve the time even where there are two cores.
test: $(VENV)/.ready-dev  ## run the tests, two at a time (ARGS='-k engine', JOBS=0 for one at a time)
	$(BIN)/python -m pytest --cov=skerry -n $(JOBS) --dist worksteal $(ARGS)

soak: $(VENV)/.ready-dev  ## run the long tests (an hour)
	$(BIN)/python -m pytest -m soak --timeout 0 -s $(ARGS)

lint: $(VENV)/.ready-dev  ## check style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-dev  ## bring the code into form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(VENV)/.ready-dev  ## check types
	$(BIN)/mypy

bench: $(VENV)/.ready-run  ## run every benchmark
	$(BIN)/python -m bench

bench-%: $(VENV)/.ready-run  ## run one benchmark, such as bench-engine
	$(BIN)/python -m bench.$* $(ARGS)

bench-docs: $(VENV)/.ready-run  ## write docs/benchmarks.md from bench/results/
	$(BIN)/python -m scripts.benchmarks_page

docs: $(VENV)/.ready-docs  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-cli: $(VENV)/.ready-run  ## write docs/cli.md from the command line itself
	$(BIN)/python -m scripts.cli_reference

system-deps:  ## install the system's components that tests use (apt, root)
	@scripts/system_deps.sh

clean:  ## remove all that make has made
	rm -rf $(VENV) .venvs .cache .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache htmlcov site dist
	rm -rf bench/results examples/*/.skerry examples/*/out examples/*/logs/*.log
	find src tests bench scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +
