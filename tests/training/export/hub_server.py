"""A hub on this machine that takes model repositories, as far as the hub's own client needs it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WRITER = "hf_writerwriterwriter"


class Hub:
    """repositories: files by name, by repository. refuse: (part of a path, status) that is answered so."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.commits: list[str] = []
        self.refuse: tuple[str, int] | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                hub.take(self)

            do_POST = do_PUT = do_GET  # noqa: N815 (names of the base class)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path = request.path.partition("?")[0]
        if self.refuse and self.refuse[0] in path:
            status, answer = self.refuse[1], {"error": "no"}
        elif path.startswith("/blobs/") and hashlib.sha256(body).hexdigest() not in path:
            status, answer = 400, {"error": "not all of it arrived"}
        elif path.startswith("/blobs/"):
            self.blobs[path.removeprefix("/blobs/")] = body
            self.sent.append(path.removeprefix("/blobs/"))
            status, answer = 200, {}
        elif request.headers.get("Authorization") != f"Bearer {WRITER}":
            status, answer = 401, {"error": "Invalid credentials"}
        else:
            status, answer = self.answer(path, body)
        content = json.dumps(answer).encode()
        request.send_response(status)
        if status == 404:
            request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "ada", "auth": {"accessToken": {"role": "write"}}}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'ada'}/{asked['name']}"
            self.repositories[name] = {}
            self.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
            return 200, {"url": f"{self.address}/{name}", "name": name, "id": "1"}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self.action(one) for one in json.loads(body)["objects"]]}
        name = "/".join(path.split("/")[3:5])
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {"files": [self.mode(one["path"]) for one in files]}
        if "/commit/" in path:
            return 200, self.commit(name, body)
        siblings = [{"rfilename": file} for file in self.repositories[name]]
        return 200, {"id": name, "sha": "1" * 40, "private": self.private[name], "siblings": siblings, "tags": []}

    def mode(self, path: str) -> dict[str, Any]:
        large = path.endswith((".safetensors", ".gguf"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = wanted["oid"] in self.blobs
        upload = {"upload": {"href": f"{self.address}/blobs/{wanted['oid']}"}}
        return {"oid": wanted["oid"], "size": wanted["size"]} | ({} if known else {"actions": upload})

    def commit(self, name: str, body: bytes) -> dict[str, Any]:
        files = self.repositories[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.commits.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
                assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        commit = f"{len(self.commits):040}"
        return {"success": True, "commitOid": commit, "commitUrl": f"{self.address}/{name}/commit/{commit}"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
