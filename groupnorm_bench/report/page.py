"""The report as one HTML file: it opens from disk, with the network off."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import groupnorm_bench
from groupnorm_bench.compare import render as tables
from groupnorm_bench.compare.rows import RunRow
from groupnorm_bench.metrics import metric_spec
from groupnorm_bench.report.content import Content, summary_sentence
from groupnorm_bench.report.draw_page import figure_spec
from groupnorm_bench.report.palette import style_of_run

_TEMPLATES = resources.files("groupnorm_bench.report") / "templates"

_CONTENTS = (
    ("verdict", "Verdict"),
    ("contrasts", "Differences"),
    ("accuracy", "Groups, epochs and time"),
    ("settings", "Every run and its settings"),
    ("inside", "Inside the network"),
    ("missed", "Most-missed images"),
    ("words", "Five words"),
    ("provenance", "Where this comes from"),
    ("runs", "All runs"),
)
_ON_A_PHONE = ("batch_size", "arm", "mean", "diff", "verdict")
"""Columns of the verdict table that a narrow screen keeps."""


_OF_RUNS = ("accuracy", "inside", "missed")
"""Sections that only networks which gnbench trained have something for."""


def _contents(content: Content) -> list[tuple[str, str]]:
    ours = content.table.is_of_networks
    return [(anchor, words) for anchor, words in _CONTENTS if ours or anchor not in _OF_RUNS]


def _column_class(head: str) -> str:
    kind = "number" if tables.is_number_column(head) else "words"
    return kind if head in _ON_A_PHONE else f"{kind} wide"


def render(content: Content) -> str:
    """Return the page. Text from users is escaped; the page's own policy forbids any request."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("groupnorm_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell_text
    metrics = _metrics_of(content)
    heads, verdicts = tables.table_of(content.listed)
    plotly = _inline(get_plotlyjs())
    script = _inline((_TEMPLATES / "report.js").read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(
        content=content,
        comparison=content.listed,
        table_title=tables.headline(content.comparison),
        heads=heads,
        verdict_rows=[list(zip(heads, row, strict=True)) for row in verdicts],
        column_class=_column_class,
        contents=_contents(content),
        summary=summary_sentence(content),
        specs=json_for_script({f.key: figure_spec(f) for f in content.figures if not f.absent}),
        run_columns=_run_columns(content, metrics),
        run_rows=[_run_row(content, metrics, row) for row in content.shown.rows],
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        plotly=plotly,
        script=script,
        script_hashes=" ".join(f"'{_hash(text)}'" for text in (plotly, script)),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=groupnorm_bench.__version__,
    )


def _inline(script: str) -> str:
    """Return a script that cannot end its own element early."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE)


def _hash(script: str) -> str:
    """Return what a content security policy calls a script: no other script may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def json_for_script(document: Any) -> str:
    """Return JSON that may stand inside a script element, whatever text is in it."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def cell_text(value: Any) -> str:
    """Return a cell of a figure's table as text."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value)


_SUMMARY_COLUMNS = {
    "test/accuracy": "test acc. (%)",
    "val/accuracy": "val acc. (%)",
    "val/accuracy_best": "best val acc. (%)",
    "train_seconds": "seconds",
    "images_per_second": "images/s",
}


def _metrics_of(content: Content) -> list[str]:
    metric = content.comparison.metric
    if not content.table.is_of_networks:
        return [metric]
    return [*_SUMMARY_COLUMNS, *([metric] if metric not in _SUMMARY_COLUMNS else [])]


def _run_columns(content: Content, metrics: list[str]) -> list[dict[str, str]]:
    """Return the run table's columns: what to call them, and whether they sort as numbers."""
    columns = [("run", "text"), ("arm", "text")]
    columns += [(name, "number") for name in content.settings]
    columns += [("seed", "number"), ("status", "text")]
    columns += [(_SUMMARY_COLUMNS.get(name, metric_spec(name).title), "number") for name in metrics]
    return [{"title": title, "kind": kind} for title, kind in columns]


def _run_row(content: Content, metrics: list[str], row: RunRow) -> dict[str, Any]:
    """Return a run as the table shows it: text, and the value to sort by."""
    settings = [row.setting.get(name) for name in content.settings]
    return {
        "name": row.folder.path.name if row.folder else row.name,
        "link": _web_address(row),
        "arm": row.arm,
        "style": style_of_run(row),
        "cells": [
            *({"text": _setting_text(value), "kind": "number"} for value in settings),
            {"text": str(row.seed), "kind": "number"},
            {"text": row.status, "kind": "text"},
            *(_number_cell(name, row.printed(name)) for name in metrics),
        ],
    }


def _setting_text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number_cell(metric: str, value: float | None) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "kind": "number"}
    text = metric_spec(metric).text(value, grouped=True)
    return {"text": text, "sort": f"{value:.8g}", "kind": "number"}


def _web_address(row: RunRow) -> str | None:
    """Return the run's page at W&B, or None; nothing but a web address may become a link."""
    address = row.result.wandb.get("url") or (row.source if row.folder is None else None)
    if isinstance(address, str) and re.match(r"https?://", address):
        return address
    return None
