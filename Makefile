PYTHON ?= python

.PHONY: check test slow bench

check:
	ruff format --check .
	ruff check .
	mypy
	$(PYTHON) -m pytest -q -n 2 --cov --cov-report=term --cov-fail-under=95

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -q -m "slow or browser"

bench:
	$(PYTHON) benchmarks/run.py
