# Every target works on a fresh clone: .venv is made, from pinned versions, when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests side by side; they wait for their children now and then.
WORKERS ?= 3
INSTALLED := $(VENV)/.installed

.PHONY: search test test-fast lint format clean

search: $(INSTALLED)
	$(BIN)/netcarve search run examples/digits.yaml

# Tests that measure time come last, when nothing else runs.
test: $(INSTALLED)
	$(BIN)/pytest -m "not alone" -n $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m alone

test-fast: $(INSTALLED)
	$(BIN)/pytest -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,postgresql]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
