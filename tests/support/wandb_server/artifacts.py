"""Artifacts on the test server: just enough for a logged table, which wandb stores as one."""

from __future__ import annotations

from typing import Any

from tests.support.wandb_server.store import Row, Store


class Artifacts:
    """Mutations of artifacts. Their files lie in the store under the artifact's negative id."""

    store: Store

    def clientIDMapping(self, info: Any, clientID: str) -> dict[str, Any] | None:
        row = self.store.one("SELECT id FROM artifacts WHERE client = ?", clientID)
        return {"serverID": row["id"]} if row else None

    def createArtifact(self, info: Any, input: Row) -> dict[str, Any]:
        project = self.store.project(input["entityName"], input["projectName"])
        row_id = self.store.insert(
            "artifacts",
            project=project["id"] if project else None,
            run=input.get("runName"),
            name=(input.get("artifactCollectionNames") or [None])[0],
            type=input["artifactTypeName"],
            digest=input["digest"],
            client=input.get("clientID"),
            state="PENDING",
        )
        return {"artifact": self._artifact(row_id)}

    def _artifact(self, row_id: int) -> dict[str, Any]:
        row = self.store.one("SELECT * FROM artifacts WHERE id = ?", row_id)
        assert row is not None
        return {
            "id": row["id"],
            "state": row["state"],
            "digest": row["digest"],
            "artifactType": {"name": row["type"]},
            "artifactSequence": {"latestArtifact": None},
        }

    def _file(self, info: Any, artifact: int, name: str) -> dict[str, Any]:
        return {
            "id": f"{artifact}/{name}",
            "storagePath": name,
            "uploadUrl": f"{info.context['base_url']}/storage/{-artifact}/{name}",
            "uploadHeaders": [],
            "artifact": self._artifact(artifact),
        }

    def createArtifactManifest(self, info: Any, input: Row) -> dict[str, Any]:
        artifact = int(input["artifactID"])
        return {
            "artifactManifest": {"id": artifact, "file": self._file(info, artifact, "manifest")}
        }

    def updateArtifactManifest(self, info: Any, input: Row) -> dict[str, Any]:
        artifact = int(input["artifactManifestID"])
        return {
            "artifactManifest": {"id": artifact, "file": self._file(info, artifact, "manifest")}
        }

    def createArtifactFiles(self, info: Any, input: Row) -> dict[str, Any]:
        files = [
            {"node": self._file(info, int(file["artifactID"]), file["name"])}
            for file in input["artifactFiles"]
        ]
        return {"files": {"edges": files}}

    def commitArtifact(self, info: Any, input: Row) -> dict[str, Any]:
        self.store.update("artifacts", int(input["artifactID"]), state="COMMITTED")
        return {"artifact": self._artifact(int(input["artifactID"]))}

    def useArtifact(self, info: Any, input: Row) -> dict[str, Any]:
        return {"artifact": self._artifact(int(input["artifactID"]))}
