# make demo: a dataset of 1,000 generated images in aug/.   make test: all checks.   make help: the rest.
# Each installs what it needs into .venv; PYTHON names another interpreter: make demo PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow faults lint audit wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.demo ## Make 1,000 labelled images in aug/ and a picture of them, preview.png
	$(BIN)/ganrt generate --n 1000 --out aug/
	$(BIN)/ganrt preview aug/ --out preview.png

test: lint ## Lint, check types and run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test ## Train, kill, resume and export every recipe (under half an hour)
	$(BIN)/python -m pytest -m slow -n 2

faults: $(VENV)/.test ## Try every fault the promises are made against, and count what was lost (under 20 minutes; KILLS=200: more)
	$(BIN)/python -m pytest tests/faults -m 'faults or not faults' -n 2

lint: $(VENV)/.test ## Lint and check types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: ## Ask osv.dev whether a pinned version has a known vulnerability (a warning where it cannot be reached)
	$(PYTHON) .ci/audit.py

wheel: $(VENV)/.demo ## Build the wheel in dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

clean: ## Remove what the other targets made, the environment too
	rm -rf $(VENV) aug preview.png dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 1; }

# The stamps say what is installed for which pyproject.toml and constraints.txt.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[train,evaluate,keras,video,test]'
	@touch $@ $(VENV)/.demo
