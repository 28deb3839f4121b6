# Two words are enough: `make demo` shows what this is, `make test` checks that it works.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types contracts tests clean

demo: $(READY)
	$(BIN)/opd-tui demo -o out/demo.zarr

test: lint types contracts tests

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about a minute and 1.7 GB."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compute,dev]'
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) out build dist *.egg-info
