# `make demo` installs and runs the main job; `make test` installs and runs what CI runs; `make prove` runs what takes minutes;
# `make gpu` tests and measures on a CUDA device in ten minutes; `make docs` writes the site of docs/ to out/docs; the others are shorthands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest tests -n auto --maxprocesses 8 --dist loadfile
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo test quick prove lint format bench gpu docs gallery clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) -e ".[test]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/optctl demo --out out/demo

test: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

quick: $(VENV)/.tested
	$(PYTEST) -m "not slow and not prove"

prove: $(VENV)/.tested
	$(PYTEST) -m prove

lint: $(VENV)/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(VENV)/.tested
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.installed
	$(BIN)/optctl bench all --out out/bench

gpu: $(VENV)/.tested
	$(BIN)/optctl bench gpu

docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d out/docs-cache docs out/docs

gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery.py

clean:
	rm -rf $(VENV) out docs/api build dist *.egg-info
