"""Speed: ways to compute a network faster than its modules do. Without it all works, slower.

`choose` is the front door; nothing outside imports past it.
"""

from groupnorm_bench.fast.ways import choose

__all__ = ["choose"]
