"""The W&B workspace that answers the question, as code. Needs the extra `dashboard`.

Facts that shape it: the run set is not grouped, for the importance panel stays empty on grouped
runs, so plots group by arm themselves; W&B shows 10 runs unless told otherwise; a config key is
written `Config(...)`, a bare word means the summary.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groupnorm_bench.errors import TrackingError, printable
from groupnorm_bench.models import MODELS

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

MAX_SHOWN = 1000
"""Runs that a panel shows at most."""
NO_VERDICT = "No verdict yet: `gnbench dashboard RUNS` puts that of your run folders here."
ACCURACY = "val/accuracy"
_MOST_LAYERS = 8
_COLORS = ("#4269d0", "#efb118", "#6cc5b0")


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelSubject:
    """What the panels draw, by the runs that they stand on."""

    tuned_by: str = ACCURACY
    """The metric that choices are made on; rows of each run's history have it."""
    metric: str = "test/accuracy"
    """What the verdict is on; of a training function of one's own the same."""
    settings: Sequence[str] = ("batch_size",)
    """What was swept beside the norm."""
    logged: Sequence[str] | None = None
    """What rows of a training function of one's own hold; None: what gnbench logs."""
    layers: Sequence[str] = tuple(MODELS["cnn"].norm_channels)
    """Norm layers whose activations are drawn."""

    @classmethod
    def of(
        cls,
        metric: str,
        settings: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        is_of_networks: bool,
    ) -> PanelSubject:
        """Return what suits runs.

        Args:
            metric: what they are compared by.
            settings: what was swept beside the norm and its own settings.
            rows: the last row of the history of each.
            is_of_networks: gnbench trained them itself.
        """
        logged = list(dict.fromkeys(name for row in rows for name in row if name != "epoch"))
        if not is_of_networks:
            return cls(tuned_by=metric, metric=metric, settings=settings, logged=logged)
        on_val = metric.replace("test/", "val/")
        layers = [name.split("/")[1] for name in logged if name.endswith("/activation_std")]
        return cls(
            tuned_by=on_val if on_val in logged else ACCURACY,
            metric=metric,
            settings=settings,
            layers=layers[:_MOST_LAYERS],
        )


DEFAULT = PanelSubject()


def require_package(command: str = "gnbench dashboard") -> None:
    """Check that the extra is installed, for `command`.

    Raises:
        TrackingError: it is not.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise TrackingError(
            f"{command} needs wandb-workspaces; pip install 'groupnorm-bench[dashboard]'"
        )


def build_workspace(
    entity: str,
    project: str,
    suite: str | None = None,
    verdict: str = NO_VERDICT,
    drawn: PanelSubject = DEFAULT,
) -> ws.Workspace:
    """Return the workspace of a project, not yet saved; nothing is asked of W&B.

    Args:
        entity, project: where it will be.
        suite: only the runs of the sweep of this name; all runs if None.
        verdict: Markdown for its first panel.
        drawn: metric and settings of the runs.

    Raises:
        TrackingError: the extra is not installed.
    """
    require_package()
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=2, rows=3)
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=without_symbols(title(suite)),
        sections=[
            ws.Section(
                name="Which normalisation?",
                panels=[_verdict_panel(wr, verdict), *answer_panels(wr, drawn)],
                is_open=True,
                layout_settings=layout,
            ),
            ws.Section(
                name="Norm diagnostics" if drawn.logged is None else "What the runs logged",
                panels=_diagnostics(wr, drawn),
                is_open=True,
                layout_settings=layout,
            ),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MAX_SHOWN),
        runset_settings=ws.RunsetSettings(
            filters=filters_of(suite),
            order=[ws.Ordering(ws.Config(name)) for name in ("arm", *drawn.settings)],
            pinned_columns=[
                "run:displayName",
                *(f"config:{key}.value" for key in ("arm", *drawn.settings, "seed")),
                *(f"summary:{key}" for key in _once(drawn.tuned_by, drawn.metric, "train_seconds")),
            ],
        ),
    )
    object.__setattr__(workspace, "_internal_name", view_name(suite))
    return workspace


def require_text(name: str, text: str | None) -> None:
    """Refuse what a terminal of another encoding made of a name, before it is sent.

    Raises:
        TrackingError: it is not UTF-8.
    """
    if text is not None and printable(text) != text:
        raise TrackingError(
            f"{name}={text!r} is not UTF-8, and W&B takes nothing else; type it anew"
        )


def title(suite: str | None) -> str:
    """Return the name that people see."""
    return "gnbench" if suite is None else f"gnbench / {suite}"


def without_symbols(text: str) -> str:
    """Return a name that W&B's client takes: it refuses emoji, and signs such as `+` with them."""
    kinds = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join("-" if unicodedata.category(c) in kinds else c for c in text)


def view_name(suite: str | None) -> str:
    """Return W&B's own name of the view: the same for the same suite, so that it is found again."""
    digest = hashlib.sha256(title(suite).encode()).hexdigest()[:11]
    return f"nw-{digest}-v"


def filters_of(suite: str | None) -> str:
    """Return which runs are shown: finished ones, of the sweep of this name if there is one.

    Raises:
        TrackingError: W&B's client would look for another name, with `==` in place of `=`.
    """
    finished = "State = 'finished'"
    if suite is not None and any(sign in suite for sign in "=<>"):
        raise TrackingError(
            f"suite={suite!r}: W&B's client cannot look for a name with =, < or >; "
            "leave --suite out"
        )
    return finished if suite is None else f"{finished} and Config('suite') = {suite!r}"


def _verdict_panel(wr: Any, verdict: str) -> Any:
    return wr.MarkdownPanel(markdown=verdict, layout=_place(wr, 0, 0, width=24))


def answer_panels(wr: Any, drawn: PanelSubject = DEFAULT) -> list[Any]:
    """Return the panels that answer the question, on the runs of whatever holds them."""
    column = wr.ParallelCoordinatesPlotColumn
    what = "accuracy" if drawn.metric == "test/accuracy" else drawn.metric
    by_epoch = "Validation accuracy" if drawn.tuned_by == ACCURACY else drawn.tuned_by
    panels = [
        wr.ParallelCoordinatesPlot(
            title=f"Every run, from settings to {what}",
            columns=[
                column(wr.Config("norm"), display_name="norm"),
                column(wr.Config("num_groups"), display_name="num_groups (0: has none)"),
                *(
                    column(
                        wr.Config(name),
                        display_name=name.replace("_", " "),
                        log=name == "batch_size" or None,
                    )
                    for name in drawn.settings
                ),
                column(wr.SummaryMetric(drawn.tuned_by), display_name=drawn.tuned_by),
            ],
            gradient=[
                wr.GradientPoint(color=color, offset=offset)
                for color, offset in zip(_COLORS, (0, 50, 100), strict=True)
            ],
            layout=_place(wr, 0, 8, width=16),
        ),
        wr.ParameterImportancePlot(with_respect_to=drawn.tuned_by, layout=_place(wr, 16, 8)),
        wr.BarPlot(
            title=f"{what[0].upper()}{what[1:]} by arm, with standard error",
            metrics=[wr.SummaryMetric(drawn.metric)],
            max_bars_to_show=30,
            layout=_place(wr, 0, 16),
            **_by_arm(wr),
        ),
        wr.LinePlot(
            title=f"{by_epoch} by epoch and arm",
            x="epoch",
            y=[drawn.tuned_by],
            layout=_place(wr, 8, 16),
            **_by_arm(wr),
        ),
        wr.BarPlot(
            title="Cost: seconds of training by arm",
            metrics=[wr.SummaryMetric("train_seconds")],
            max_bars_to_show=30,
            layout=_place(wr, 0, 24),
            **_by_arm(wr),
        ),
        wr.RunComparer(diff_only="split", layout=_place(wr, 8, 24, width=16)),
    ]
    if drawn.settings:
        against = wr.ScatterPlot(
            title=f"{what[0].upper()}{what[1:]} against {drawn.settings[0].replace('_', ' ')}",
            x=wr.Config(drawn.settings[0]),
            y=wr.SummaryMetric(drawn.tuned_by),
            log_x=drawn.settings[0] == "batch_size" or None,
            layout=_place(wr, 16, 16),
        )
        panels.insert(4, against)
    return panels


def _diagnostics(wr: Any, drawn: PanelSubject) -> list[Any]:
    lines = [
        ("Evaluation gap of batch norm", "norm/eval_gap"),
        *(
            (f"{layer}: {word} of its activations", f"norm/{layer}/activation_{key}")
            for layer in drawn.layers
            for word, key in (("mean", "mean"), ("spread", "std"))
        ),
        ("Training loss", "train/loss"),
        ("Speed in images per second", "perf/images_per_second"),
    ]
    if drawn.logged is not None:
        lines = [(name, name) for name in drawn.logged[:_MOST_LAYERS]]
    return [
        wr.LinePlot(
            title=name,
            x="epoch",
            y=[key],
            layout=_place(wr, 8 * (i % 3), 8 * (i // 3)),
            **_by_arm(wr),
        )
        for i, (name, key) in enumerate(lines)
    ]


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _by_arm(wr: Any) -> dict[str, Any]:
    by_arm = {"groupby": wr.Config("arm"), "groupby_aggfunc": "mean"}
    return by_arm | {"groupby_rangefunc": "stderr", "max_runs_to_show": MAX_SHOWN}


def _place(wr: Any, x: int, y: int, width: int = 8) -> Any:
    return wr.Layout(x=x, y=y, w=width, h=8)


def spec_of(workspace: ws.Workspace) -> dict[str, Any]:
    """Return what `save_workspace` sends, less the random ids that each call draws anew."""
    view = workspace._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {
        "entity": view.entity,
        "project": view.project,
        "name": view.name,
        "displayName": view.display_name,
        "spec": without_ids(spec),
    }


def without_ids(value: Any) -> Any:
    """Return a spec without the ids that are drawn anew each time."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("__id__", "id", "ref")}
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    return value


def save_workspace(workspace: ws.Workspace) -> str:
    """Save a workspace over the view of its name, or as a new one; return its address.

    Raises:
        TrackingError: W&B refuses us, or has no such project.
    """
    from groupnorm_bench.tracking.bounded import open_api
    from groupnorm_bench.tracking.login import require_login

    require_login()
    with open_api():
        from wandb_workspaces.workspaces import internal

        path = f"{workspace.entity}/{workspace.project}"
        try:
            known = internal.get_view_dict(
                workspace.entity,
                workspace.project,
                internal._internal_name_to_url_query_str(workspace._internal_name),
            )
            object.__setattr__(workspace, "_internal_id", known["id"])
        except ValueError as error:
            if "Workspace" not in str(error):  # the project is missing, not only the view
                raise TrackingError(
                    f"W&B has no project {path}; train something into it first"
                ) from error
        workspace.save()
    return str(workspace.url)


def default_entity() -> str:
    """Return the entity that W&B puts our runs in.

    Raises:
        TrackingError: W&B refuses us.
    """
    from groupnorm_bench.tracking.bounded import open_api
    from groupnorm_bench.tracking.login import require_login

    require_login()
    with open_api() as api:
        return str(api.default_entity)
