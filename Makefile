# Each target first gives .venv what it needs (.ci/environment): once, and again when pyproject.toml
# changes. PYTHON= names an interpreter, CC= a C compiler, ARGS= is passed on:
#     make demo ARGS="--num-cells 10"        make test ARGS="-k averaging"

# Without bytecode on disk every import of dolfinx, torch and pyvista takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

python := .venv/bin/python

.PHONY: help demo docs test lint format clean
.NOTPARALLEL:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

demo:  ## a random vascular network, from graph to solution; pictures in output/
	@bash .ci/environment demo
	$(python) demos/03_random_vascular_network.py $(ARGS)

docs:  ## the site, with every demo run: docs/_build/html/index.html
	@bash .ci/environment docs
	$(python) -m sphinx -c docs -W --keep-going -n . docs/_build/html $(ARGS)

test:  ## run the tests, on two processes
	@bash .ci/environment test
	OMP_NUM_THREADS=1 $(python) -m pytest -n 2 --dist loadfile $(ARGS)

lint:  ## check style and types
	@bash .ci/environment lint
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format:  ## mend the style where a tool can
	@bash .ci/environment lint
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

clean:  ## remove pictures, caches and build products; .venv stays
	rm -rf output build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +
