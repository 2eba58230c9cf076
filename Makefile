# One word a chore. Each creates .venv when it is missing and reuses it when it is there.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

.PHONY: bench test check format smoke reference kernel clean
.DEFAULT_GOAL := bench

bench: $(READY)  ## the default table from the embedded dataset
	$(BIN)/python -m benchmark run $(ARGS)

test: $(READY)  ## every test
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)  ## put formatting and imports right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: $(READY)  ## the default line-up with random weights, held against the committed reference
	$(BIN)/python -m benchmark run --weights random --no-cache --overwrite --out .smoke
	$(BIN)/python -m benchmark diff results/reference/products .smoke

reference: $(READY)  ## make the committed reference anew; say in the commit why a number moved
	$(BIN)/python -m benchmark run --weights random --no-cache --overwrite --out results/reference/products

kernel: $(READY)  ## the top-k kernel against its peers, in one table
	$(BIN)/python -m benchmark.kernel $(ARGS)

clean:
	rm -rf .venv .smoke .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)
