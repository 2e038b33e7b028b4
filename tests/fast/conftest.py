"""Where the loops are kept that tests of this folder take."""

import pytest

from groupnorm_bench.fast import compiler


@pytest.fixture(scope="session", autouse=True)
def loops(request):
    """Load the module of loops while the shared folder is set, not a test's own: it keeps it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(request.config.cache.mkdir("loops")))
        return compiler.kernels()
