# `make demo` shows the system at work, `make test` tests it. Both need Python 3.11 with venv, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin

FUZZ_SECONDS ?= 3600

.PHONY: demo test long fuzz lint bench clean

demo: $(VENV)/ready
	$(BIN)/chamelio demo

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup

long: $(VENV)/ready-dev
	$(BIN)/python -m pytest -m long --timeout=3600

fuzz: $(VENV)/ready-fuzz
	cd tests && ../$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	@echo 'lines per folder:'
	@for d in src/chamelio/*/ tests/ docs/; do \
	  printf '%7d %s\n' "$$(git ls-files -z "$$d" | xargs -0r cat | wc -l)" "$$d"; done

bench: $(VENV)/ready
	$(BIN)/chamelio bench tax

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[build]'
	touch $@

$(VENV)/ready-dev: pyproject.toml $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

$(VENV)/ready-fuzz: pyproject.toml $(VENV)/ready-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	touch $@

clean:
	rm -rf build $(VENV)
