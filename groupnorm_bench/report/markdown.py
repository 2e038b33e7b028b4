"""The report as Markdown, for a README or an issue: verdicts, cells and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groupnorm_bench.compare import render as tables
from groupnorm_bench.report.content import Content, summary_sentence
from groupnorm_bench.wording import count

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*[]|<>"})


def render_markdown(content: Content, pictures: Sequence[Path] = ()) -> str:
    """Return the report in GitHub's Markdown.

    Args:
        content: what to say.
        pictures: figures' PNG files to link, as paths from where the text will lie.
    """
    comparison = content.comparison
    parts = [
        "## Which normalisation, and is the difference real?",
        plain(summary_sentence(content)),
    ]
    parts.append(
        "\n".join(
            f"- **{plain(headline.words.capitalize())}:** {plain('; '.join(headline.items))}"
            + (f"; and {headline.more} more" if headline.more else "")
            + "."
            for headline in content.headlines
        )
    )
    parts += ["### Verdicts", tables.headline(comparison)]
    parts.append(tables.to_markdown(*tables.table_of(comparison)))
    parts.append("\n".join(f"- {plain(c.sentence)}" for c in comparison.contrasts))
    parts += [f"![{plain(path.stem)}](<{path.as_posix()}>)" for path in pictures]
    if comparison.notes:
        parts += ["### Notes", "\n".join(f"- {plain(note)}" for note in comparison.notes)]
    parts += ["### Where this comes from", _provenance(content)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it stands."""
    return " ".join(text.split()).translate(_SPECIAL)


def _provenance(content: Content) -> str:
    lines = [
        f"- {count(origin.runs, 'run')} by {plain(origin.code)}, on {plain(origin.machine)}, "
        f"started {plain(origin.when)}, by: {plain(origin.command)}"
        for origin in content.origins
    ]
    return "\n".join([*lines, f"- This report: {plain(content.command)}"])
