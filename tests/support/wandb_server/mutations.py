"""What clients may change on the test server: the roots of its GraphQL schema."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import yaml

from tests.support.wandb_server.artifacts import Artifacts
from tests.support.wandb_server.resolvers import USER, Agent, Project, Run, Sweep, View, matches
from tests.support.wandb_server.store import Row, Store
from tests.support.wandb_server.sweeps import (
    ACTIVE,
    next_point,
    parse,
    stop_by_hyperband,
    values_of,
)

ENTITIES = ("tester", "team")
FORBIDDEN = "forbidden"


class ApiError(Exception):
    """An answer of the API that is not 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Rules:
    """What this server refuses, or is slow about, beyond faults of the network."""

    accept_attach = True
    """Take a run that names a sweep which did not hand it out (`WANDB_SWEEP_ID`)."""
    accept_prior_runs = True
    crash_seconds = 300.0
    """Silence after which a run is called crashed."""


class Root(Artifacts):
    """Queries and mutations; one object for all requests."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self.store = store
        self.rules = rules

    # queries

    def viewer(self, info: Any) -> dict[str, Any]:
        return USER

    def serverInfo(self, info: Any) -> dict[str, Any]:
        return {"features": []}

    def project(self, info: Any, name: str | None = None, entityName: str | None = None) -> Any:
        if entityName == FORBIDDEN:
            raise ApiError(403, "permission denied")
        row = self.store.project(entityName or ENTITIES[0], name or "uncategorized")
        return Project(self.store, row) if row else None

    model = project

    def models(
        self,
        info: Any,
        entityName: str | None = None,
        after: str | None = None,
        first: int | None = None,
    ) -> dict[str, Any]:
        rows = self.store.all("SELECT * FROM projects WHERE entity = ?", entityName or USER)
        edges = [{"node": Project(self.store, row), "cursor": ""} for row in rows]
        return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}

    def entity(self, info: Any, name: str) -> dict[str, Any] | None:
        if name not in ENTITIES:
            return None
        return {"id": name, "name": name, "xxhashDigestsEnabled": False, "organization": None}

    def organization(self, info: Any, name: str) -> dict[str, Any]:
        return {"featureFlags": []}

    # mutations

    def _open_project(self, entity: str | None, name: str | None, operation: str) -> Row:
        entity = entity or ENTITIES[0]
        if entity == FORBIDDEN:
            raise ApiError(403, "permission denied")
        if entity not in ENTITIES:
            raise ApiError(404, f"entity {entity} not found during {operation}")
        row = self.store.project(entity, name or "uncategorized", create=True)
        assert row is not None
        return row

    def upsertModel(self, info: Any, input: Row) -> dict[str, Any]:
        row = self._open_project(input.get("entityName"), input["name"], "upsertModel")
        project = Project(self.store, row)
        return {"project": project, "model": project, "inserted": True}

    def upsertBucket(self, info: Any, input: Row) -> dict[str, Any]:
        with self.store.lock:
            run, inserted = self._find_or_make_run(input)
            columns = {
                "display_name": "displayName",
                "description": "description",
                "notes": "notes",
                "config": "config",
                "summary": "summaryMetrics",
                "group_name": "groupName",
                "job_type": "jobType",
                "commit_hash": "commit",
                "host": "host",
                "program": "jobProgram",
                "sweep": "sweep",
                "state": "state",
            }
            changes = {c: input[f] for c, f in columns.items() if input.get(f) is not None}
            if input.get("tags") is not None:
                changes["tags"] = json.dumps(input["tags"])
            try:
                self._check_sweep(run, changes)
            except ApiError:
                if inserted:
                    self.store.delete_run(run["id"])
                raise
            if input.get("id") is None and run["state"] != "running":
                changes |= {"state": "running", "exitcode": None, "preempting": 0}
                changes["starts"] = run["starts"] + 1
            self.store.update("runs", run["id"], heartbeat=time.time(), **changes)
            row = self.store.one("SELECT * FROM runs WHERE id = ?", run["id"])
        assert row is not None
        return {"bucket": Run(self.store, row), "inserted": inserted}

    def _find_or_make_run(self, input: Row) -> tuple[Row, bool]:
        if input.get("id"):
            row = self.store.one("SELECT * FROM runs WHERE id = ?", int(input["id"]))
            if row is None:
                raise ApiError(404, f"run {input['id']} not found during upsertBucket")
            return row, False
        project = self._open_project(
            input.get("entityName"), input.get("modelName"), "upsertBucket"
        )
        name = input.get("name") or secrets.token_hex(4)
        row = self.store.run(project["id"], name)
        if row is not None:
            return row, False
        now = time.time()
        row_id = self.store.insert(
            "runs", project=project["id"], name=name, state="new", created=now, heartbeat=now
        )
        row = self.store.one("SELECT * FROM runs WHERE id = ?", row_id)
        assert row is not None
        return row, True

    def _check_sweep(self, run: Row, changes: Row) -> None:
        name = changes.get("sweep")
        if name is None or name == run["sweep"]:
            return
        if not self.rules.accept_attach:
            del changes["sweep"]
        elif self.store.sweep(run["project"], name) is None:
            raise ApiError(404, f"sweep {name} not found during upsertBucket")

    def upsertSweep(self, info: Any, input: Row) -> dict[str, Any]:
        config = yaml.safe_load(input.get("config") or "null")
        if config is not None:
            check_sweep_config(config)
        with self.store.lock:
            sweep = self._find_or_make_sweep(input)
            columns = {
                "config": "config",
                "display_name": "displayName",
                "description": "description",
                "state": "state",
                "controller": "controller",
                "scheduler": "scheduler",
            }
            changes = {c: input[f] for c, f in columns.items() if input.get(f) is not None}
            if config is not None and "name" in config:
                changes.setdefault("display_name", config["name"])
            if changes:
                self.store.update("sweeps", sweep["id"], **changes)
            if input.get("priorRunsFilters"):
                self._adopt(sweep, json.loads(input["priorRunsFilters"]))
            row = self.store.one("SELECT * FROM sweeps WHERE id = ?", sweep["id"])
        assert row is not None
        return {"sweep": Sweep(self.store, row), "configValidationWarnings": []}

    def _find_or_make_sweep(self, input: Row) -> Row:
        if input.get("id"):
            row = self.store.one("SELECT * FROM sweeps WHERE id = ?", int(input["id"]))
            if row is None:
                raise ApiError(404, f"sweep {input['id']} not found")
            return row
        if not input.get("config"):
            raise ApiError(400, "a new sweep needs a config")
        project = self._open_project(
            input.get("entityName"), input.get("projectName"), "upsertSweep"
        )
        row_id = self.store.insert(
            "sweeps",
            project=project["id"],
            name=secrets.token_hex(4),
            config=input["config"],
            created=time.time(),
        )
        row = self.store.one("SELECT * FROM sweeps WHERE id = ?", row_id)
        assert row is not None
        return row

    def _adopt(self, sweep: Row, filters: Row) -> None:
        if not self.rules.accept_prior_runs:
            raise ApiError(400, "prior runs are not accepted")
        rows = self.store.all("SELECT * FROM runs WHERE project = ?", sweep["project"])
        for row in rows:
            if matches(row, filters):
                self.store.update("runs", row["id"], sweep=sweep["name"])

    def upsertView(self, info: Any, input: Row) -> dict[str, Any]:
        now = time.time()
        with self.store.lock:
            values = {
                "name": input.get("name"),
                "type": input.get("type"),
                "display_name": input.get("displayName"),
                "description": input.get("description"),
                "spec": input.get("spec"),
                "updated": now,
            }
            row_id = int(input["id"]) if input.get("id") else None
            if row_id is None:
                project = self.store.project(input["entityName"], input["projectName"])
                if project is None:  # unlike a report, a workspace does not make its project
                    raise ApiError(404, f"project {input['projectName']} not found")
                row_id = self.store.insert("views", project=project["id"], created=now, **values)
            else:
                self.store.update("views", row_id, **values)
            row = self.store.one("SELECT * FROM views WHERE id = ?", row_id)
        assert row is not None
        return {"view": View(self.store, row), "inserted": not input.get("id")}

    def createAgent(self, info: Any, input: Row) -> dict[str, Any]:
        project = self._open_project(
            input.get("entityName"), input.get("projectName"), "createAgent"
        )
        sweep = self.store.sweep(project["id"], input["sweep"])
        if sweep is None:
            raise ApiError(404, f"sweep {input['sweep']} not found")
        now = time.time()
        row_id = self.store.insert(
            "agents", sweep=sweep["id"], host=input["host"], created=now, heartbeat=now
        )
        row = self.store.one("SELECT *, 0 AS project FROM agents WHERE id = ?", row_id)
        assert row is not None
        return {"agent": Agent(self.store, row)}

    def agentHeartbeat(self, info: Any, input: Row) -> dict[str, Any]:
        with self.store.lock:
            agent = self.store.one("SELECT * FROM agents WHERE id = ?", int(input["id"]))
            sweep = agent and self.store.one("SELECT * FROM sweeps WHERE id = ?", agent["sweep"])
            if agent is None or sweep is None:
                raise ApiError(404, f"agent {input['id']} not found")
            self.store.update("agents", agent["id"], heartbeat=time.time())
            live = [name for name, on in json.loads(input.get("runState") or "{}").items() if on]
            commands = self._commands(agent, sweep, live)
        return {"agent": Agent(self.store, agent), "commands": json.dumps(commands)}

    def _commands(self, agent: Row, sweep: Row, live: list[str]) -> list[Row]:
        """Return what an agent must do now; `live` are the runs it says it has."""
        self._call_crashed(agent, sweep, live)
        if sweep["state"] == "CANCELED":
            return [{"type": "exit"}]
        stop_by_hyperband(self.store, sweep)
        stops = [
            {"type": "stop", "run_id": run["name"]}
            for run in self.store.sweep_runs(sweep)
            if run["stop_requested"] and run["name"] in live
        ]
        if live:
            return stops
        if sweep["state"] == "FINISHED":
            return [{"type": "exit"}]
        if sweep["state"] == "PAUSED" or "local" in (sweep["controller"] or ""):
            return []
        return self._hand_out(agent, sweep)

    def _call_crashed(self, agent: Row, sweep: Row, live: list[str]) -> None:
        for run in self.store.sweep_runs(sweep):
            silent = time.time() - run["heartbeat"] > self.rules.crash_seconds
            gone = run["agent"] == agent["id"] and run["name"] not in live
            if run["state"] in ACTIVE and (silent or (gone and run["state"] == "pending")):
                self.store.update("runs", run["id"], state="crashed")

    def _hand_out(self, agent: Row, sweep: Row) -> list[Row]:
        config = parse(sweep)
        runs = self.store.sweep_runs(sweep)
        waiting = next((run for run in runs if run["state"] == "preempted"), None)
        if waiting is not None:
            self.store.update(
                "runs",
                waiting["id"],
                state="pending",
                agent=agent["id"],
                offers=waiting["offers"] + 1,
                heartbeat=time.time(),
                stop_requested=0,
            )
            return [command("resume", waiting["name"], config, json.loads(waiting["config"]))]
        point = next_point(config, runs)
        if point is None:
            if any(run["state"] in ACTIVE for run in runs):
                return []  # another agent's run may yet be preempted and need a place
            self.store.update("sweeps", sweep["id"], state="FINISHED")
            return [{"type": "exit"}]
        args = {name: {"value": value} for name, value in point.items()}
        name, now = secrets.token_hex(4), time.time()
        self.store.insert(
            "runs",
            project=sweep["project"],
            name=name,
            sweep=sweep["name"],
            config=json.dumps(args),
            state="pending",
            agent=agent["id"],
            offers=1,
            created=now,
            heartbeat=now,
        )
        if sweep["state"] == "PENDING":
            self.store.update("sweeps", sweep["id"], state="RUNNING")
        return [command("run", name, config, args)]

    def createRunFiles(self, info: Any, input: Row) -> dict[str, Any]:
        run = self._named_run(input)
        base = info.context["base_url"]
        files = [
            {"id": name, "name": name, "uploadUrl": f"{base}/storage/{run['id']}/{name}"}
            for name in input["files"]
        ]
        return {"runID": run["id"], "uploadHeaders": [], "files": files}

    def markRunFilesUploaded(self, info: Any, input: Row) -> dict[str, Any]:
        self._named_run(input)
        return {"success": True}

    def _named_run(self, input: Row) -> Row:
        project = self.store.project(input["entityName"], input["projectName"])
        run = self.store.run(project["id"], input["runName"]) if project else None
        if run is None:
            raise ApiError(404, f"run {input['runName']} not found")
        return run

    def stopRun(self, info: Any, input: Row) -> dict[str, Any]:
        self.store.update("runs", int(input["id"]), stop_requested=1)
        return {"success": True}

    def deleteRun(self, info: Any, input: Row) -> dict[str, Any]:
        self.store.delete_run(int(input["id"]))
        return {"clientMutationId": None}

    def updateRunState(self, info: Any, input: Row) -> dict[str, Any]:
        self.store.update("runs", int(input["id"]), state=input["state"])
        return {"success": True}


def command(kind: str, run: str, config: Row, args: Row) -> Row:
    """Return one command for an agent; `args` are `{"name": {"value": ...}}`."""
    swept = config.get("parameters", {})
    return {
        "type": kind,
        "run_id": run,
        "program": config.get("program"),
        "args": {name: {"value": args[name]["value"]} for name in args if name in swept},
        "logs": [],
    }


def check_sweep_config(config: Row) -> None:
    """Refuse what W&B refuses outright.

    Raises:
        ApiError: the method is unknown, or a grid has a continuous parameter.
    """
    if config.get("method") not in ("grid", "random", "bayes", "custom"):
        raise ApiError(400, f"method {config.get('method')!r} is not valid")
    if config["method"] == "grid":
        for parameter in config.get("parameters", {}).values():
            try:
                values_of(parameter)
            except ValueError as error:
                raise ApiError(400, str(error)) from error
    if config["method"] == "bayes" and "metric" not in config:
        raise ApiError(400, "bayes needs a metric")
