# make demo           two real sweeps on scikit-learn's digits, their tables, and where to browse them
# make test           linter, type checker; unit, parity and integration tests
# make test-slow      chaos, kills, whole sweeps, documented commands, notebooks; then the tests of test-cluster
# make test-cluster   a cluster on hosts made of network namespaces; skipped unless root, on Linux
# make ui             the MLflow UI on loopback
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 5000
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test types fast test-slow test-cluster ui clean

demo: $(INSTALLED)
	@$(BIN)/python -m sweeps demo_lejepa demo_rectified_lpjepa demo_two_workers

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types fast

types: $(INSTALLED)
	$(BIN)/mypy

fast: $(INSTALLED)
	$(PYTEST) --durations 10 tests/unit tests/parity tests/integration

test-slow: $(INSTALLED)
	$(PYTEST) --durations 10 tests/slow --ignore tests/slow/test_preemption.py
	$(BIN)/python -m pytest tests/slow/test_preemption.py  # beside other tests, its cluster's head may not start
	@$(MAKE) --no-print-directory test-cluster

test-cluster: $(INSTALLED)
	@[ "$$(id -u)" -ne 0 ] || tests/cluster/needs.sh
	$(BIN)/python -m pytest -rs --durations=0 --durations-min=1 tests/cluster

ui: $(INSTALLED)
	@$(BIN)/python -m analysis.ui --port $(PORT)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else \
	"Python must be 3.11 or 3.12, got %d.%d; name another with: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	@echo "installing into $(VENV) (3 minutes, 6.5 GB with the CUDA builds of torch) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
