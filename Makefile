# make demo · demo-live · test · train · lint · bench: each sets up .venv by itself; a second run installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= configs/tiny.toml
LLAMA  := $(shell sed -n 's/^llama_cpp_python==//p' constraints.txt)
TORCH  := $(shell sed -n 's/^torch==//p' constraints.txt)
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
# One thread a process where processes run side by side; training sets its own number.
TEST   := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo demo-live test test-slow train lint bench setup clean
demo: setup
	@$(BIN)/claude-trainer demo

demo-live: setup  ## after `make demo`: its student inside the real Claude Code (needs npm)
	@$(BIN)/claude-trainer demo --live

test: setup  ## the default suite
	@$(TEST) -m "not slow"

test-slow: setup  ## the tests that take minutes
	@$(TEST) -m slow

train: setup
	@$(BIN)/claude-trainer train --config $(CONFIG)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup
	@for file in benchmarks/*.py; do echo "== $$file"; OMP_NUM_THREADS=1 $(BIN)/python $$file || exit 1; done

setup: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml constraints.txt trainer/export/install_llama_cpp.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed, found " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch $(TORCH) (first, so that a CPU build is taken where one is offered)"
	@$(PIP) install -c constraints.txt torch==$(TORCH)
	@echo "installing the rest of constraints.txt"
	@$(PIP) install -c constraints.txt -e '.[train,export,serve,ui,dev]'
	@$(BIN)/python trainer/export/install_llama_cpp.py $(LLAMA)
	@touch $@

clean:
	rm -rf $(VENV) runs models
