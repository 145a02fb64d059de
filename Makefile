# Everything on a fresh machine with Python >= 3.11 and make: `make demo`, `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check peers nvrtc gpu lint clean

demo: $(READY)
	$(BIN)/minifcn train

# Tests share the cores; each of them may use all, so WORKERS=1 is for measuring one.
WORKERS ?= auto
test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not torch"

# Every gradient on this machine, in about two minutes; EXAMPLES=4 is a shorter look.
EXAMPLES ?= 25
check: $(READY)
	$(BIN)/minifcn check --all --examples $(EXAMPLES)

# The same networks and ops in PyTorch: loss by loss, gradient by gradient.
peers: $(READY)
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pytest -n $(WORKERS) -m torch

# The code that NVRTC generates for GPUs: within its budget, and interpreted. No GPU is needed.
nvrtc: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[nvrtc]"
	$(BIN)/python -m pytest -n $(WORKERS) -m nvrtc tests/cuda

# Everything that wants a GPU, on a machine that has one, with CuPy and PyTorch: at most nine minutes.
gpu:
	benchmarks/gpu.sh

lint: $(READY)
	$(BIN)/python -m pip install --quiet "ruff>=0.9"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
