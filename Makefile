# `make` alone lists the targets. Every target that needs Python sets it up first (scripts/setup.sh),
# which is instant once done.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The test processes share the cores; threads of the array libraries on top of them only get in the way.
PYTEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint format docs outputs bench observations dist clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	@VENV=$(VENV) bash scripts/setup.sh

setup: $(STAMP) ## make .venv with all that is needed

demo: $(STAMP) ## fit the bundled observation, learned and classical; tables on the terminal, plots in demo-output/
	$(BIN)/deepspec fit data/binary_a.pha --model "tbabs*deepspec" --out demo-output/learned
	@echo
	$(BIN)/deepspec fit data/binary_a.pha --model "tbabs*(powerlaw+bbody)" --notice 0.4:9 --out demo-output
	@echo
	@echo "The commands above printed the tables. Results and plots are in demo-output/ and demo-output/learned/:"
	@ls -1 demo-output demo-output/learned | sed 's/^/  /'

test: lint ## everything that must pass: lint and all tests
	$(PYTEST) -n $(WORKERS)

quick: $(STAMP) ## the tests that take seconds
	$(PYTEST) -n $(WORKERS) -m "not slow"

lint: $(STAMP) ## ruff: mistakes and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## build the documentation into docs/_build/html; warnings are errors
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

outputs: $(STAMP) ## run the commands that the documentation shows, and keep what they print
	OMP_NUM_THREADS=1 $(BIN)/python docs/generate.py --outputs

bench: $(STAMP) ## measure against Sherpa on this machine; tables in benchmarks/out/
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

observations: $(STAMP) ## simulate the bundled observations again
	$(BIN)/python data/make_observations.py

dist: $(STAMP) ## wheel and sdist in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')"

clean: ## remove what the other targets made, the environment too
	rm -rf $(VENV) build dist *.egg-info demo-output docs/_build benchmarks/out .pytest_cache .ruff_cache .hypothesis
