# make quickstart | test | lint | bench | install | clean. The environment in .venv is made once and reused.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install quickstart test lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), "ray-al needs Python 3.11 to 3.13; set PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

quickstart: $(STAMP)
	$(BIN)/ray-al run sweeps/quickstart.yaml
	$(BIN)/ray-al results runs/quickstart

# Tests that start Ray take longest and often wait: the others run in what is left meanwhile, and are shown after them.
test: lint
	@log=$$(mktemp); nice -n 10 $(BIN)/python -m pytest -m "not slow" >$$log 2>&1 & others=$$!; \
	$(BIN)/python -m pytest -m slow; slow=$$?; \
	wait $$others; failed=$$?; cat $$log; rm $$log; exit $$((slow | failed))

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The peers that the benchmarks compare with are installed here and nowhere else.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
