"""Draws what `compare` returned: no statistic is computed here.

`figures` turns values into charts (`charts`), which `plotly_charts` draws for the page and
`static` for paper; `page` and `markdown` write the two formats. Loads without torch and wandb.
"""
