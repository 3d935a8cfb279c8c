# The two commands of the README are `make demo` and `make test`; each makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Where it is set each process compiles what torch and transformers import anew, for 20 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long check format docs clean

demo: $(READY)
	$(BIN)/stillhouse run recipes/quickstart/recipe.yaml

# One worker a core with one thread each: two that both use all cores would wait for each other, spinning.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

test: $(READY)
	$(TESTS)

test-long: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff format --check src tests benchmarks docs/generate.py
	$(BIN)/ruff check src tests benchmarks docs/generate.py
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(TESTS)

format: $(READY)
	$(BIN)/ruff format src tests benchmarks docs/generate.py
	$(BIN)/ruff check --fix src tests benchmarks docs/generate.py

docs: $(READY)
	$(BIN)/python docs/generate.py

# requirements.lock pins everything; torch comes as its CPU build where pip is shown one (a plain version matches
# "+cpu" builds, and pip prefers them).
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
