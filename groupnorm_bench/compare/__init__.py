"""From runs to verdicts: values only; `report` and the command line draw them.

`load` reads runs as `rows`, `stats` holds the statistics, `verdicts` applies the recipe of
`docs/statistics.md`, `importance` says which setting matters. Loads without torch and wandb.
`groupnorm_bench.compare(...)` is `ask.compare`.
"""

from groupnorm_bench.callable_package import make_callable

make_callable(__name__, "ask:compare")
