"""From a W&B sweep file to runs: spec (the file) -> plan (the runs) | search -> scheduler.

Called, it runs a sweep: `groupnorm_bench.sweep("sweeps/norm.yaml")`; see `session.sweep`.
"""

from groupnorm_bench.callable_package import make_callable

make_callable(__name__, "session:sweep")
