"""The verdict as a W&B Report, made from code. Needs the extra `dashboard`.

Facts that shape it: a run set asks the server as soon as it has an entity and a project, so a
report that is only printed has neither; `save` draws a new name each time, so ours, by which the
report is found again, is set on the model; a title has at most 128 characters.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from groupnorm_bench.errors import TrackingError
from groupnorm_bench.tracking import workspace

Report = Any
"""`wandb_workspaces.reports.v2.Report`, whose package exports it to no type checker."""

MAX_TITLE = 128
_HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
_PANELS_BEFORE = "Where this comes from"


def build_report(
    entity: str,
    project: str,
    title: str,
    text: str,
    suite: str | None = None,
    drawn: workspace.PanelSubject = workspace.DEFAULT,
) -> Report:
    """Return the report of a project, not yet saved.

    Args:
        entity, project: where it will be; without an entity nothing is asked of W&B.
        title: its heading; it is found again by it.
        text: Markdown, whose headings become the report's.
        suite: panels on the runs of the sweep of this name only; on all finished ones if None.
        drawn: metric and settings of the runs.

    Raises:
        TrackingError: the extra is not installed.
    """
    workspace.require_package("gnbench publish")
    import wandb_workspaces.reports.v2

    wr: Any = wandb_workspaces.reports.v2
    blocks: list[Any] = [wr.TableOfContents()]
    pieces = _HEADING.split(text)
    sections = [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]
    for heading, body in sections:
        if heading == _PANELS_BEFORE:
            blocks += _panels(wr, entity, project, suite, drawn)
        if heading:
            blocks.append(wr.H2(text=heading.replace("\\", "")))
        if body.strip():
            blocks.append(wr.MarkdownBlock(text=body.strip()))
    return wr.Report(
        entity=entity,
        project=project,
        title=title[:MAX_TITLE],
        description="Made by gnbench publish from run folders; typed again, it is updated.",
        blocks=blocks,
        width="fluid",
    )


def _panels(
    wr: Any, entity: str, project: str, suite: str | None, drawn: workspace.PanelSubject
) -> list[Any]:
    known = {"entity": entity, "project": project} if entity else {"entity": "", "project": ""}
    runs = wr.Runset(name="finished runs", filters=workspace.filters_of(suite), **known)
    grid = wr.PanelGrid(runsets=[runs], panels=workspace.answer_panels(wr, drawn))
    return [wr.H2(text="The runs on W&B"), grid]


def report_name(title: str) -> str:
    """Return W&B's own name of the report: the same for the same title."""
    return f"gnbench-{hashlib.sha256(title.encode()).hexdigest()[:11]}"


def spec_of(report: Report) -> dict[str, Any]:
    """Return what saving it sends, less the random ids that each call draws anew."""
    model = report._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {
        "entity": report.entity,
        "project": report.project,
        "name": report_name(report.title),
        "displayName": model.display_name,
        "description": model.description,
        "spec": workspace.without_ids(spec),
    }


def save_report(
    entity: str,
    project: str,
    title: str,
    text: str,
    suite: str | None,
    drawn: workspace.PanelSubject,
) -> str:
    """Build a report and save it over the one of its title, or as a new one; return its address.

    Raises:
        TrackingError: W&B refuses us, or has no such project.
    """
    from groupnorm_bench.tracking.bounded import open_api
    from groupnorm_bench.tracking.login import require_login

    require_login()
    with open_api() as api:
        if project not in {known.name for known in api.projects(entity)}:
            raise TrackingError(
                f"W&B has no project {entity}/{project}; upload the runs first: gnbench sync"
            )
        report = build_report(entity, project, title, text, suite, drawn)
        model = report._to_model()
        model.name = report_name(report.title)
        known = api.reports(f"{entity}/{project}", name=model.name)
        model.id = next((one.id for one in known), "")
        object.__setattr__(report, "_to_model", lambda: model)
        report.save()
    return str(report.url)
