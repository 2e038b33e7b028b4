"""The report as Markdown, for a README or an issue: verdicts, cells and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groupnorm_bench.compare import render as tables
from groupnorm_bench.report.content import Content, summary_sentence
from groupnorm_bench.wording import count, markdown


def render_markdown(content: Content, pictures: Sequence[Path] = ()) -> str:
    """Return the report in GitHub's Markdown.

    Args:
        content: what to say.
        pictures: figures' PNG files to link, as paths from where the text will lie.
    """
    comparison = content.listed
    parts = [
        f"## {markdown(content.question)}",
        markdown(summary_sentence(content)),
    ]
    parts.append(
        "\n".join(
            f"- **{markdown(headline.words.capitalize())}:** {markdown('; '.join(headline.items))}"
            + (f"; and {headline.more} more" if headline.more else "")
            + "."
            for headline in content.headlines
        )
    )
    parts += ["### Verdicts", markdown(tables.headline(comparison))]
    parts.append(tables.to_markdown(*tables.table_of(comparison)))
    parts.append("\n".join(f"- {markdown(c.sentence)}" for c in comparison.contrasts))
    parts += [f"![{markdown(path.stem)}](<{path.as_posix()}>)" for path in pictures]
    if comparison.notes:
        parts += ["### Notes", "\n".join(f"- {markdown(note)}" for note in comparison.notes)]
    parts += ["### Where this comes from", _provenance(content)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _provenance(content: Content) -> str:
    lines = [
        f"- {count(origin.runs, 'run')} by {markdown(origin.code)}, on {markdown(origin.machine)}, "
        f"started {markdown(origin.when)}, by: {markdown(origin.command)}"
        for origin in content.origins
    ]
    return "\n".join([*lines, f"- This report: {markdown(content.command)}"])
