"""A stand-in for the Hugging Face Hub on loopback: as much of its HTTP interface as uploads use."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 1000  # bytes from which on a file goes through LFS


class Hub(ThreadingHTTPServer):
    """repos: id -> path -> content. commits: what was committed, in order. refuse: path prefix -> status."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.objects, self.commits, self.refuse, self.made = {}, {}, [], {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running():
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handled(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        for prefix, status in self.server.refuse.items():
            if path.startswith(prefix):
                return self.answer({"error": "refused by the test"}, status)
        if path.startswith("/lfs/"):
            self.server.objects[path.removeprefix("/lfs/")] = self.body
            return self.answer({})
        if self.headers.get("Authorization") != "Bearer hf_test" and not path.startswith(
            "/api/validate-yaml"
        ):
            return self.answer({"error": "unauthorized"}, 401)
        if path == "/api/repos/create":
            return self.created(json.loads(self.body))
        if path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(self.body))
        repo, _, rest = path.removeprefix("/api/models/").partition("/")
        name, _, rest = rest.partition("/")
        return self.of_a_repo(f"{repo}/{name}", rest)

    do_GET = do_POST = do_PUT = handled  # noqa: N815

    def created(self, wanted):
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self.server.repos:
            return self.answer({"url": f"{self.server.url}/{repo}"}, 409)
        self.server.repos[repo] = {".gitattributes": b"*.onnx filter=lfs\n"}
        self.server.made.append(wanted)
        return self.answer({"url": f"{self.server.url}/{repo}"})

    def batch(self, wanted):
        upload = lambda oid: {"upload": {"href": f"{self.server.url}/lfs/{oid}", "header": {}}}
        objects = [
            {**each, "actions": {} if each["oid"] in self.server.objects else upload(each["oid"])}
            for each in wanted["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def of_a_repo(self, repo, rest):
        files = self.server.repos[repo]
        if rest.startswith("preupload/"):
            told = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for each in json.loads(self.body)["files"]
            ]
            return self.answer({"files": told})
        if rest.startswith("commit/"):
            return self.committed(repo, [json.loads(line) for line in self.body.splitlines()])
        if rest.startswith("tree/"):
            return self.answer(
                [{"type": "file", "path": path, "size": len(x), "oid": "0"} for path, x in files.items()]
            )
        return self.answer({
            "id": repo, "sha": "0" * 40, "private": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": path} for path in files],
        })  # fmt: skip

    def committed(self, repo, lines):
        files = dict(self.server.repos[repo])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.server.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.repos[repo] = files
        self.server.commits.append(lines[0]["value"]["summary"])
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{'1' * 40}", "commitOid": "1" * 40})
