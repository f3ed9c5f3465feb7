"""A small stand-in for the Hugging Face hub on loopback: what `HfFileSystem` asks to list and to read, no more."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

REPOSITORY, TOKEN = "owner/name", "hf_the-right-one"

Revisions = Mapping[str, Mapping[str, bytes]]
"""The files of each revision, by their paths."""


@contextmanager
def hub(revisions: Revisions) -> Iterator[str]:
    """The address of a hub with one private data set, which only `TOKEN` opens."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
                self._refuse(401, "", "Invalid credentials in Authorization header")
            elif self.headers.get("Authorization") is None or f"datasets/{REPOSITORY}" not in path:
                self._refuse(401, "RepoNotFound", "Repository not found")
            elif found := re.fullmatch(rf"/datasets/{REPOSITORY}/resolve/([^/]+)/(.+)", path):
                self._file(revisions.get(found[1], {}).get(found[2]))
            elif found := re.fullmatch(rf"/api/datasets/{REPOSITORY}/tree/([^/]+)(?:/(.*))?", path):
                self._tree(found[1], found[2] or "", "recursive=true" in self.path.lower())
            elif found := re.fullmatch(rf"/api/datasets/{REPOSITORY}(?:/revision/([^/]+))?", path):
                if (found[1] or "main") not in revisions:
                    self._refuse(404, "RevisionNotFound", "Invalid rev id")
                else:
                    self._answer({"id": REPOSITORY, "sha": "0" * 40})
            else:
                self._refuse(404, "EntryNotFound", "no such call")

        def _file(self, data: bytes | None) -> None:
            if data is None:
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            first, last = 0, len(data) - 1
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                first, last = int(wanted[1]), min(last, int(wanted[2]))
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self._body(data[first : last + 1])

        def _tree(self, revision: str, folder: str, recursive: bool) -> None:
            below, entries = f"{folder}/" if folder else "", dict[str, dict[str, object]]()
            for path, data in revisions.get(revision, {}).items():
                if not path.startswith(below):
                    continue
                steps = path.removeprefix(below).split("/")
                for depth in range(1, len(steps) if recursive else min(2, len(steps))):
                    name = below + "/".join(steps[:depth])
                    entries[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
                if recursive or len(steps) == 1:
                    entries[path] = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
            if entries:
                self._answer(list(entries.values()))
            else:
                self._refuse(404, "EntryNotFound", f"{folder} does not exist")

        def _answer(self, body: object) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self._body(json.dumps(body).encode())

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self._body(json.dumps({"error": message}).encode())

        def _body(self, data: bytes) -> None:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
