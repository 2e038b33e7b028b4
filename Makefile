PYTHON ?= python

.PHONY: check test slow bench

check:
	.ci/check

test:
	$(PYTHON) -m pytest

slow:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 -m "slow or browser"

bench:
	$(PYTHON) benchmarks/run.py $(BENCH)
