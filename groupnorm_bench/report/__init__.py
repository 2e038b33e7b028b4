"""Draws what `compare` returned: no statistic is computed here.

`content` gathers what a report says; `accuracy`, `diagnostics`, `importance`, `parallel` and
`gallery` turn values into `charts`, which `draw_page` draws for the page and `draw_paper` for
paper; `page` and `markdown` write the two formats. Loads without torch and wandb.
`groupnorm_bench.report(...)` is `write.report`.
"""

from groupnorm_bench.callable_package import make_callable

make_callable(__name__, "write:report")
