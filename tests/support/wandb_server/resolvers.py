"""GraphQL types of the test server: each field of `schema.graphql` read from the store.

Names follow the schema, hence camelCase. graphql-core calls a method with the field's arguments.
"""

from __future__ import annotations

import datetime
import fnmatch
import hashlib
import json
import operator
from typing import Any

import yaml

from tests.support.wandb_server.store import Row, Store
from tests.support.wandb_server.sweeps import ACTIVE, grid_points, recorded

USER = {
    "id": "VXNlcjox",
    "name": "Test Er",
    "username": "tester",
    "email": "tester@example.invalid",
    "admin": False,
    "flags": "{}",
    "entity": "tester",
    "apiKeys": {"edges": []},
    "teams": {"edges": [{"node": {"id": "team", "name": "team"}}]},
}


def when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def page(items: list[Any], first: int | None, after: str | None) -> dict[str, Any]:
    """Return one page of a connection; a cursor is the position of an item."""
    start = int(after) + 1 if after else 0
    stop = len(items) if first is None else min(len(items), start + first)
    edges = [{"node": items[i], "cursor": str(i)} for i in range(start, stop)]
    end = str(stop - 1) if edges else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": stop < len(items)}}


class Node:
    """A row of the store as GraphQL sees it."""

    def __init__(self, store: Store, row: Row) -> None:
        self.store = store
        self.row = row
        self.id = row["id"]

    @property
    def _project(self) -> Row:
        found = self.store.one("SELECT * FROM projects WHERE id = ?", self.row["project"])
        assert found is not None
        return found

    @property
    def project(self) -> Project:
        return Project(self.store, self._project)

    @property
    def createdAt(self) -> str | None:
        return when(self.row["created"])


class Project(Node):
    views = None
    isBenchmark = readOnly = False
    access = "PRIVATE"
    description = ""
    user = USER

    def __init__(self, store: Store, row: Row) -> None:
        super().__init__(store, row)
        self.internalId = row["id"]
        self.name = row["name"]
        self.entityName = row["entity"]
        self.entity = {"id": row["entity"], "name": row["entity"]}

    def _runs(self, filters: str | None, order: str | None = None) -> list[Run]:
        wanted = json.loads(filters or "{}")
        rows = self.store.all("SELECT * FROM runs WHERE project = ? ORDER BY id", self.id)
        rows = [row for row in rows if matches(row, wanted)]
        if order and order.lstrip("+-") != "created_at":
            rows.sort(key=lambda row: order_key(row, order.lstrip("+-")))
        if order and order.startswith("-"):
            rows.reverse()
        return [Run(self.store, row) for row in rows]

    def runCount(self, info: Any, filters: str | None = None) -> int:
        return len(self._runs(filters))

    def runs(
        self,
        info: Any,
        filters: str | None = None,
        after: str | None = None,
        first: int | None = None,
        order: str | None = None,
    ) -> dict[str, Any]:
        return page(self._runs(filters, order), first, after)

    def run(self, info: Any, name: str) -> Run | None:
        row = self.store.run(self.id, name)
        return Run(self.store, row) if row else None

    def bucket(self, info: Any, name: str, missingOk: bool = False) -> Run | None:
        return self.run(info, name)

    def sweep(self, info: Any, sweepName: str) -> Sweep | None:
        row = self.store.sweep(self.id, sweepName)
        return Sweep(self.store, row) if row else None

    def _sweeps(self) -> list[Sweep]:
        rows = self.store.all("SELECT * FROM sweeps WHERE project = ? ORDER BY id", self.id)
        return [Sweep(self.store, row) for row in rows]

    def sweeps(
        self,
        info: Any,
        after: str | None = None,
        first: int | None = None,
        filters: str | None = None,
    ) -> dict[str, Any]:
        if json.loads(filters or "{}"):
            raise ValueError(f"sweep filters {filters} are not played by this test server")
        return page(self._sweeps(), first, after)

    def totalSweeps(self, info: Any) -> int:
        return len(self._sweeps())

    def artifact(self, info: Any, name: str) -> None:
        return None  # artifacts are taken in, not handed out

    def allViews(
        self,
        info: Any,
        viewType: str | None = None,
        viewName: str | None = None,
        userName: str | None = None,
        first: int | None = None,
        after: str | None = None,
    ) -> dict[str, Any]:
        rows = self.store.all("SELECT * FROM views WHERE project = ? ORDER BY id", self.id)
        rows = [row for row in rows if viewType in (None, row["type"])]
        rows = [row for row in rows if viewName in (None, row["name"])]
        return page([View(self.store, row) for row in rows], first, after)


class View(Node):
    user = USER

    def __init__(self, store: Store, row: Row) -> None:
        super().__init__(store, row)
        self.name = row["name"]
        self.type = row["type"]
        self.displayName = row["display_name"]
        self.description = row["description"]
        self.spec = row["spec"]
        self.updatedAt = when(row["updated"])


class Agent(Node):
    def __init__(self, store: Store, row: Row) -> None:
        super().__init__(store, row)
        self.name = str(row["id"])
        self.host = row["host"]
        self.state = "RUNNING"
        self.heartbeatAt = when(row["heartbeat"])

    def totalRuns(self, info: Any) -> int:
        return len(self.store.all("SELECT id FROM runs WHERE agent = ?", self.id))


class Sweep(Node):
    heartbeatAt = updatedAt = controllerRunName = None
    earlyStopJobRunning = False

    def __init__(self, store: Store, row: Row) -> None:
        super().__init__(store, row)
        self.name = row["name"]
        self.displayName = row["display_name"]
        self.description = row["description"]
        self.state = row["state"]
        self.config = row["config"]
        self.controller = row["controller"]
        self.scheduler = row["scheduler"]
        self.method = yaml.safe_load(row["config"]).get("method")

    def _runs(self) -> list[Run]:
        return [Run(self.store, row) for row in self.store.sweep_runs(self.row)]

    def runs(self, info: Any, first: int | None = None, after: str | None = None) -> dict[str, Any]:
        return page(self._runs(), first, after)

    def runCount(self, info: Any) -> int:
        return len(self._runs())

    def runCountExpected(self, info: Any) -> int | None:
        config = yaml.safe_load(self.config)
        if config.get("method") == "grid":
            return len(list(grid_points(config)))
        return config.get("run_cap")

    def bestLoss(self, info: Any) -> float | None:
        metric = (yaml.safe_load(self.config).get("metric") or {}).get("name")
        values = [json.loads(run.row["summary"]).get(metric) for run in self._runs()]
        numbers = [value for value in values if isinstance(value, int | float)]
        return min(numbers, default=None)

    def agents(self, info: Any) -> dict[str, Any]:
        rows = self.store.all("SELECT * FROM agents WHERE sweep = ? ORDER BY id", self.id)
        return {"edges": [{"node": Agent(self.store, row)} for row in rows]}

    def agent(self, info: Any, agentName: str) -> Agent | None:
        row = self.store.one("SELECT * FROM agents WHERE id = ?", int(agentName))
        return Agent(self.store, row) if row else None


class Run(Node):
    readOnly = False
    systemMetrics = "{}"
    user = USER

    def __init__(self, store: Store, row: Row) -> None:
        super().__init__(store, row)
        self.projectId = row["project"]
        self.name = row["name"]
        self.displayName = row["display_name"] or row["name"]
        self.sweepName = row["sweep"]
        self.state = row["state"]
        self.config = row["config"]
        self.group = row["group_name"]
        self.jobType = row["job_type"]
        self.commit = row["commit_hash"]
        self.description = row["description"]
        self.notes = row["notes"]
        self.tags = json.loads(row["tags"])
        self.summaryMetrics = row["summary"]
        self.exitcode = row["exitcode"]
        self.heartbeatAt = when(row["heartbeat"])
        self.shouldStop = self.stopped = bool(row["stop_requested"])
        self.failed = row["state"] in ("failed", "crashed")
        self.running = row["state"] in ACTIVE

    def sweep(self, info: Any) -> Sweep | None:
        row = self.store.sweep(self.projectId, self.sweepName) if self.sweepName else None
        return Sweep(self.store, row) if row else None

    def _history(self) -> list[Row]:
        return self.store.history(self.id)

    def historyLineCount(self, info: Any) -> int:
        return len(self._history())

    def wandbConfig(self, info: Any, keys: list[str] | None = None) -> str:
        """Return the client's own part of the config; without its key `t` no run is resumed."""
        own = json.loads(self.config).get("_wandb", {}).get("value", {})
        return json.dumps({key: own[key] for key in own if keys is None or key in keys})

    def historyTail(self, info: Any) -> str:
        """Return the last line, from which a resumed run learns its step."""
        return json.dumps(self.store.lines(self.id, "wandb-history.jsonl")[-1:])

    def eventsTail(self, info: Any) -> str:
        return json.dumps(self.store.lines(self.id, "wandb-events.jsonl")[-1:])

    def eventsLineCount(self, info: Any) -> int:
        return len(self.store.lines(self.id, "wandb-events.jsonl"))

    def logLineCount(self, info: Any) -> int:
        return len(self.store.lines(self.id, "output.log"))

    def historyKeys(self, info: Any) -> dict[str, Any]:
        rows = self._history()
        keys: dict[str, Any] = {}
        for row in rows:
            for key, value in row.items():
                counts = keys.setdefault(key, {"typeCounts": [{"type": "number", "count": 0}]})
                counts["typeCounts"][0]["count"] += 1
                counts["previousValue"] = value
        last = max((row.get("_step", -1) for row in rows), default=-1)
        return {"keys": keys, "lastStep": last, "sets": []}

    def history(
        self, info: Any, minStep: int = 0, maxStep: int | None = None, samples: int | None = None
    ) -> list[str]:
        rows = [
            row
            for row in self._history()
            if row["_step"] >= minStep and (maxStep is None or row["_step"] < maxStep)
        ]
        return [json.dumps(row) for row in rows[:samples]]

    def events(self, info: Any, samples: int | None = None) -> list[str]:
        return self.store.lines(self.id, "wandb-events.jsonl")[:samples]

    def sampledHistory(self, info: Any, specs: list[str]) -> list[list[Row]]:
        answer = []
        for spec in map(json.loads, specs):
            keys = spec.get("keys", [])
            rows = [row for row in self._history() if all(key in row for key in keys)]
            rows = [{k: v for k, v in row.items() if k in keys or not keys} for row in rows]
            answer.append(rows[: spec.get("samples")])
        return answer

    def parquetHistory(self, info: Any, liveKeys: list[str]) -> dict[str, Any]:
        return {"parquetUrls": [], "liveData": self._history()}

    def _files(self, names: list[str] | None, pattern: str | None) -> list[dict[str, Any]]:
        rows = self.store.all("SELECT * FROM files WHERE run = ? ORDER BY name", self.id)
        if names:
            rows = [row for row in rows if row["name"] in names]
        if pattern:
            rows = [row for row in rows if fnmatch.fnmatch(row["name"], pattern.replace("%", "*"))]
        return [
            {
                "id": f"{self.id}:{row['name']}",
                "name": row["name"],
                "sizeBytes": len(row["content"]),
                "md5": hashlib.md5(row["content"]).hexdigest(),
                "mimetype": "",
                "updatedAt": when(row["uploaded"]),
                "directUrl": f"/storage/{self.id}/{row['name']}",
            }
            for row in rows
        ]

    def fileCount(self, info: Any) -> int:
        return len(self._files(None, None))

    def files(
        self,
        info: Any,
        names: list[str] | None = None,
        after: str | None = None,
        first: int | None = None,
        pattern: str | None = None,
    ) -> dict[str, Any]:
        base = info.context["base_url"]
        files = self._files(names, pattern)
        for file in files:
            file["url"] = file["directUrl"] = base + file["directUrl"]
        return page(files, first, after)


_OPERATORS = {
    "$in": lambda value, wanted: value in wanted,
    "$nin": lambda value, wanted: value not in wanted,
    "$ne": operator.ne,
    "$eq": operator.eq,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_COLUMNS = {
    "name": "name",
    "sweep": "sweep",
    "state": "state",
    "group": "group_name",
    "displayName": "display_name",
    "display_name": "display_name",
    "jobType": "job_type",
}


def field_of(row: Row, key: str) -> Any:
    """Return what a filter's key means for a run.

    Raises:
        ValueError: this test server does not know the key.
    """
    if key in _COLUMNS:
        return row[_COLUMNS[key]]
    if key == "tags":
        return json.loads(row["tags"])
    if key.startswith("config."):
        return recorded(row).get(key.removeprefix("config.").removesuffix(".value"))
    if key.startswith("summary_metrics."):
        return json.loads(row["summary"]).get(key.removeprefix("summary_metrics."))
    raise ValueError(f"run filter {key!r} is not played by this test server")


def matches(row: Row, wanted: dict[str, Any]) -> bool:
    """Return whether a run passes a filter in W&B's MongoDB-like language."""
    for key, value in wanted.items():
        if key == "$and":
            passed = all(matches(row, part) for part in value)
        elif key == "$or":
            passed = any(matches(row, part) for part in value)
        elif isinstance(value, dict):
            actual = field_of(row, key)
            passed = all(_OPERATORS[op](actual, operand) for op, operand in value.items())
        else:
            actual = field_of(row, key)
            passed = value in actual if isinstance(actual, list) else actual == value
        if not passed:
            return False
    return True


def order_key(row: Row, order: str) -> Any:
    if order.startswith("summary_metrics."):
        value = json.loads(row["summary"]).get(order.removeprefix("summary_metrics."))
    elif order.startswith("config."):
        value = recorded(row).get(order.removeprefix("config.").removesuffix(".value"))
    elif order == "heartbeat_at":
        value = row["heartbeat"]
    else:
        raise ValueError(f"order {order!r} is not played by this test server")
    return (value is None, value)
