"""A Hub for tests: repositories in memory on 127.0.0.1, spoken to by the unmodified `huggingface_hub` client.

It is a process of its own (`python hub_server.py`), which prints its address and ends with its parent. Users, their
tokens and organisations are fixed in `hub_state`. Besides the Hub's own routes it has `/_test/...`: faults to inject,
the history of every repository, and the requests so far.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_state import ORGANISATIONS, READ_ONLY, USERS, Blob, Commit, Fault, Refusal, Repository, State

LFS_ENDINGS = (".safetensors", ".parquet", ".arrow", ".gz", ".npz", ".model")
LFS_ABOVE = 1_000_000  # bytes; the real Hub's limit is 10 MB, which would make tests slow
FRONT_MATTER = re.compile(r"^\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", re.DOTALL)


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    # An answer goes out at once and as one: its body would else wait 40 ms for the client to acknowledge its head.
    disable_nagle_algorithm = True
    wbufsize = -1
    state: State
    url: str
    timeout = 60

    def log_message(self, *args: Any) -> None:
        pass

    # ---- in and out

    def answer(self) -> None:
        self.fault: Fault | None = None
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.body = self._read_body()
        if parts.path.startswith("/_test/"):
            self.send(200, self._control(parts.path.rpartition("/")[2]))
            return
        with self.state.lock:
            self.state.requests.append(f"{self.command} {parts.path}")
            self.fault = self.state.fault_for(self.command, parts.path)
        try:
            self._apply_fault_before()
            with self.state.lock:
                status, content, headers = self._route(parts.path)
        except Refusal as refusal:
            headers = {
                "X-Error-Message": refusal.message,
                **{k.replace("_", "-"): v for k, v in refusal.headers.items()},
            }
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            status, content = refusal.status, {"error": refusal.message}
        except ConnectionAbortedError:
            self.close_connection = True
            return
        self.send(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  the names that http.server calls

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _apply_fault_before(self) -> None:
        fault = self.fault
        if fault is None:
            return
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        elif fault.kind == "cut":
            raise ConnectionAbortedError
        elif fault.kind == "status":
            said = f" for {self.headers.get('Authorization')}" if fault.echo_token else ""
            raise Refusal(fault.status, f"injected{said}", **({"Retry_After": "0"} if fault.status == 429 else {}))

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        if self.fault is not None and self.fault.kind == "lost":
            self.close_connection = True
            return
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            if self.fault is not None and self.fault.kind == "half":
                self.close_connection = True
                body = body[: len(body) // 2]
            self.wfile.write(body)

    # ---- control

    def _control(self, what: str) -> Any:
        state = self.state
        with state.lock:
            if what == "clear":
                state.clear()
            elif what == "fault":
                state.faults.append(Fault(**json.loads(self.body)))
            elif what == "requests":
                return state.requests
            elif what == "history":
                wanted = json.loads(self.body)
                repository = state.repositories.get((wanted["kind"], wanted["name"]))
                return None if repository is None else repository.history(wanted["branch"])
            elif what == "file":
                wanted = json.loads(self.body)
                commit = state.repositories[wanted["kind"], wanted["name"]].at(wanted["branch"])
                return base64.b64encode(commit.files[wanted["path"]].data).decode()
        return {}

    # ---- rights

    def user(self) -> str | None:
        header = self.headers.get("Authorization")
        if not header:
            return None
        self.token = header.partition(" ")[2]
        if self.token not in USERS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return USERS[self.token]

    def repository(self, kind: str, name: str, write: bool = False) -> Repository:
        user, owner = self.user(), name.partition("/")[0]
        member = user is not None and (user == owner or user in ORGANISATIONS.get(owner, ()))
        found = self.state.repositories.get((kind, name))
        if found is None or (found.private and not member):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.need_write(owner)
        return found

    def need_write(self, owner: str) -> None:
        user = self.user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if self.token in READ_ONLY or not (user == owner or user in ORGANISATIONS.get(owner, ())):
            raise Refusal(403, f"You don't have the rights to write in the namespace {owner!r}")

    # ---- routes

    def _route(self, path: str) -> tuple[int, Any, dict[str, str]]:
        for methods, pattern, function in ROUTES:
            match = pattern.fullmatch(path) if self.command in methods else None
            if match:
                named = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                if "prefix" in match.groupdict():
                    named["kind"] = (named.pop("prefix", None) or "models/")[:-2]
                return function(self, **named)
        raise Refusal(404, f"No route for {self.command} {path}")

    def whoami(self) -> Any:
        user = self.user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        organisations = [{"name": name} for name, members in ORGANISATIONS.items() if user in members]
        role = "read" if self.token in READ_ONLY else "write"
        content = {"type": "user", "name": user, "fullname": user, "orgs": organisations}
        return 200, {**content, "auth": {"accessToken": {"role": role}}}, {}

    def create(self) -> Any:
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.user() or ""
        self.need_write(owner)
        kind, name = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.state.repositories:
            return 409, {"error": "You already created this repo", "url": url}, {}
        if kind == "space" and not wanted.get("sdk"):
            raise Refusal(400, "A Space needs an sdk.")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repository = Repository(kind, name, private, wanted.get("sdk"))
        repository.add("main", Commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial", None))
        self.state.repositories[kind, name] = repository
        return 200, {"url": url, "name": name, "id": name}, {}

    def info(self, kind: str, name: str, revision: str = "main") -> Any:
        repository = self.repository(kind, name)
        commit = repository.at(revision)
        content: dict[str, Any] = {
            "id": name, "author": name.partition("/")[0], "sha": commit.oid, "private": repository.private,
            "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }  # fmt: skip
        if "README.md" in commit.files:
            content["cardData"] = _front_matter(commit.files["README.md"].data.decode()) or {}
        return 200, content, {}

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> Any:
        commit = self.repository(kind, name).at(revision)
        below = {p: blob for p, blob in commit.files.items() if not path or p.startswith(f"{path}/")}
        if path and not below:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound", X_Repo_Commit=commit.oid)
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        depth = path.count("/") + 1 if path else 0
        rows: dict[str, dict[str, Any]] = {}
        for file, blob in sorted(below.items()):
            parts = file.split("/")
            for end in range(depth + 1, len(parts)):
                folder = "/".join(parts[:end])
                if recursive or end == depth + 1:
                    rows[folder] = {"type": "directory", "path": folder, "size": 0, "oid": _sha1(folder)}
            if recursive or len(parts) == depth + 1:
                rows[file] = blob.entry(file)
        return 200, list(rows.values()), {"X-Repo-Commit": commit.oid}

    def paths_info(self, kind: str, name: str, revision: str) -> Any:
        commit = self.repository(kind, name).at(revision)
        form = "json" not in self.headers.get("Content-Type", "")
        paths = parse_qs(self.body.decode()).get("paths", []) if form else json.loads(self.body)["paths"]
        rows = []
        for path in (path.strip("/") for path in paths):
            if path in commit.files:
                rows.append(commit.files[path].entry(path))
            elif any(file.startswith(f"{path}/") for file in commit.files):
                rows.append({"type": "directory", "path": path, "size": 0, "oid": _sha1(path)})
        return 200, rows, {}

    def refs(self, kind: str, name: str) -> Any:
        found = self.repository(kind, name).branches.items()
        rows = [{"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid} for branch, oid in found]
        return 200, {"branches": rows, "converts": [], "tags": [], "pullRequests": []}, {}

    def branch(self, kind: str, name: str, branch: str) -> Any:
        repository = self.repository(kind, name, write=True)
        if branch in repository.branches:
            raise Refusal(409, f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repository.branches[branch] = repository.at(start).oid
        return 200, {}, {}

    def preupload(self, kind: str, name: str, revision: str) -> Any:
        commit = self.repository(kind, name, write="create_pr" not in self.query).at(revision)
        rows = []
        for file in json.loads(self.body)["files"]:
            lfs = file["path"].endswith(LFS_ENDINGS) or file["size"] > LFS_ABOVE
            there = commit.files.get(file["path"])
            mode, oid = "lfs" if lfs else "regular", None if there is None else there.etag
            rows.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": rows}, {}

    def commit(self, kind: str, name: str, revision: str) -> Any:
        as_request = "create_pr" in self.query
        repository = self.repository(kind, name, write=not as_request)
        head = repository.at(revision)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines:
            self._change(files, line["key"], line["value"])
        branch = f"refs/pr/{len(repository.branches)}" if as_request else revision
        made = repository.add(
            branch, Commit(files, header["summary"], head.oid, description=header.get("description", ""))
        )
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        content = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}"}
        if as_request:
            content["pullRequestUrl"] = f"{url}/discussions/{branch.rpartition('/')[2]}"
        return 200, content, {}

    def _change(self, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in self.state.objects:
                raise Refusal(400, f"The object {value['oid']} was not uploaded.")
            files[value["path"]] = Blob(self.state.objects[value["oid"]], True)
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")

    def lfs_batch(self, kind: str, name: str) -> Any:
        self.repository(kind, name, write=True)
        rows = []
        for wanted in json.loads(self.body)["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.state.objects:
                place = f"{self.url}/_lfs/{wanted['oid']}"
                row["actions"] = {"upload": {"href": place}, "verify": {"href": f"{place}/verify"}}
            rows.append(row)
        return 200, {"transfer": "basic", "objects": rows}, {}

    def lfs_put(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content does not have this sha256.")
        self.state.objects[oid] = self.body
        return 200, b"", {}

    def lfs_verify(self, oid: str) -> Any:
        if len(self.state.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise Refusal(404, "The object is missing or has another size.")
        return 200, {}, {}

    def validate_yaml(self) -> Any:
        try:
            metadata = _front_matter(json.loads(self.body)["content"])
        except yaml.YAMLError as err:
            return 400, {"errors": [{"message": f"not YAML: {err}"}], "warnings": []}, {}
        problems = _metadata_problems(metadata or {})
        return 400 if problems else 200, {"errors": [{"message": p} for p in problems], "warnings": []}, {}

    def resolve(self, kind: str, name: str, revision: str, path: str) -> Any:
        commit = self.repository(kind, name).at(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        blob = commit.files[path]
        headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or self.command == "HEAD":
            return 200, blob.data, headers
        start, end = int(span[1]), int(span[2] or len(blob.data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.data)}"
        return 206, blob.data[start : end + 1], headers

    def nothing(self, **named: str) -> Any:
        return 200, {}, {}


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _front_matter(text: str) -> Any:
    match = FRONT_MATTER.match(text)
    return yaml.safe_load(match[1]) if match else None


def _metadata_problems(metadata: Any) -> list[str]:
    """What the Hub would refuse of the metadata that this project writes."""
    if not isinstance(metadata, dict):
        return ["metadata must be an object"]
    problems = [f'"{key}" must be a string' for key in ("license", "pipeline_tag", "library_name", "sdk")
                if key in metadata and not isinstance(metadata[key], str)]  # fmt: skip
    for model in metadata.get("model-index", []):
        for result in model["results"]:
            if not result.get("task", {}).get("type") or not result.get("dataset", {}).get("type"):
                problems.append('"model-index" results need task.type and dataset.type')
            if not all("type" in metric and "value" in metric for metric in result["metrics"]):
                problems.append('"model-index" metrics need type and value')
    base = metadata.get("base_model", [])
    if any(not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) for name in ([base] if isinstance(base, str) else base)):
        problems.append('"base_model" must be an id')
    return problems


_NAME = r"(?P<name>[\w.-]+(?:/[\w.-]+)?)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_NAME}"
_GIT = rf"/(?P<prefix>datasets/|spaces/)?{_NAME}"
ROUTES = [
    (methods.split(), re.compile(pattern), function)
    for methods, pattern, function in [
        ("GET", "/api/whoami-v2", Handler.whoami),
        ("POST", "/api/repos/create", Handler.create),
        ("POST", "/api/validate-yaml", Handler.validate_yaml),
        ("GET HEAD POST", "/api/(?:telemetry/.*|agent-harnesses)", Handler.nothing),
        ("GET", rf"{_API}/revision/(?P<revision>[^/]+)", Handler.info),
        ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", Handler.tree),
        ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
        ("GET", rf"{_API}/refs", Handler.refs),
        ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", Handler.branch),
        ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", Handler.preupload),
        ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", Handler.commit),
        ("GET", _API, Handler.info),
        ("POST", rf"{_GIT}\.git/info/lfs/objects/batch", Handler.lfs_batch),
        ("PUT", "/_lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
        ("POST", "/_lfs/(?P<oid>[0-9a-f]{64})/verify", Handler.lfs_verify),
        ("GET HEAD", rf"{_GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    ]
]


def main() -> None:
    """Serve until stdin, which the parent holds, is closed."""
    Handler.state = State()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(Handler.url + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
