"""From runs to verdicts: values only; `report` and the command line draw them.

`table` reads runs as rows, `stats` holds the statistics, `verdicts` applies the recipe of
`docs/statistics.md`, `importance` says which setting matters. Loads without torch and wandb.
"""
