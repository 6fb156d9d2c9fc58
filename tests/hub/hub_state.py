"""What the Hub for tests knows: users, repositories with their commits, and faults to inject."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

USERS = {"hf_aliceSecretToken": "alice", "hf_bobSecretToken": "bob", "hf_readOnlySecretToken": "alice"}
READ_ONLY = {"hf_readOnlySecretToken"}
ORGANISATIONS = {"acme": {"alice"}, "others": set()}


class Refusal(Exception):  # noqa: N818  it is an answer, not a mistake of the server
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


@dataclass
class Blob:
    """The content of a file, and whether it came over LFS."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self, path: str) -> dict[str, Any]:
        row = {"type": "file", "path": path, "size": len(self.data), "oid": self.oid}
        if self.lfs:
            row["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return row


@dataclass
class Commit:
    """A state of a repository."""

    files: dict[str, Blob]
    title: str
    parent: str | None
    oid: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        state = [self.title, self.parent, sorted((p, b.sha256) for p, b in self.files.items()), time.time_ns()]
        self.oid = hashlib.sha1(repr(state).encode()).hexdigest()


@dataclass
class Repository:
    """Branches and commits."""

    kind: str
    name: str
    private: bool
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, commit: Commit) -> Commit:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, branch: str) -> list[dict[str, Any]]:
        rows, commit = [], self.commits.get(self.branches.get(branch, ""))
        while commit is not None:
            row = {"oid": commit.oid, "title": commit.title, "description": commit.description}
            rows.append({**row, "files": sorted(commit.files)})
            commit = self.commits.get(commit.parent or "")
        return rows[::-1]


@dataclass
class Fault:
    """What happens to requests that match, `times` of them after the first `after`."""

    method: str
    path: str
    kind: str  # "status", "cut" (no answer), "half" (half a body), "lost" (done, but no answer), "slow"
    status: int = 500
    times: int = 1
    after: int = 0
    seconds: float = 0.0
    echo_token: bool = False


class State:
    """All that the server knows."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []

    def fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and method == fault.method and re.search(fault.path, path):
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None
