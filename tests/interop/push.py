"""Compares `gossamer push` with Hugging Face's own client.

Both push the same files to a small Hub on this machine, which speaks the protocol of the real one
as far as pushing needs it. Then the stored files are compared, byte for byte, in both kinds of
storage, in one piece and in parts. Needs `huggingface_hub`:

    python tests/interop/push.py --gossamer target/release/gossamer [--model MODEL]
"""

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_writer"
LARGE = (".safetensors", ".pt", ".bin")


class Hub(ThreadingHTTPServer):
    """Repositories, and the large files that they name."""

    daemon_threads = True

    def __init__(self, part_size):
        super().__init__(("127.0.0.1", 0), Handler)
        self.part_size = part_size
        self.lock = threading.Lock()
        self.repositories, self.objects, self.parts, self.requests = {}, {}, {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, value=None, headers=()):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        chunks = []
        while "chunked" in self.headers.get("transfer-encoding", ""):
            size = int(self.rfile.readline(), 16)
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                break
        return b"".join(chunks)

    def do_PUT(self):
        body, (_, oid, *part) = self.body(), urlsplit(self.path).path.strip("/").split("/")
        assert "authorization" not in self.headers, "the token was sent to the storage"
        with self.server.lock:
            if part:
                self.server.parts.setdefault(oid, {})[int(part[0])] = body
                return self.reply(200, headers=[("ETag", f'"part-{part[0]}"')])
            if hashlib.sha256(body).hexdigest() != oid:
                return self.reply(400, {"error": "other bytes"})
            self.server.objects[oid] = body
        self.reply(200)

    def do_GET(self):
        self.answer("GET", None)

    def do_POST(self):
        self.answer("POST", self.body())

    def answer(self, method, body):
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        with self.server.lock:
            self.server.requests.append((method, self.path))
            if path[0] != "complete" and self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.reply(401, {"error": "no"})
            self.reply(*self.route(method, path, body))

    def route(self, method, path, body):
        hub = self.server
        if path == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in hub.repositories:
                return 409, {"error": "exists"}
            hub.repositories[name] = {}
            return 200, {"url": f"{hub.endpoint}/{name}", "name": name}
        if path[:2] == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}
        if path[:2] == ["api", "models"]:
            files = hub.repositories.get("/".join(path[2:4]))
            if files is None:
                return 404, {"error": "no such repository"}
            return self.model(path[4:], files, body)
        if path[-4:] == ["info", "lfs", "objects", "batch"]:
            return 200, {"transfer": "basic", "objects": [self.object(o) for o in json.loads(body)["objects"]]}
        if path[0] == "complete":
            parts = hub.parts.pop(path[1])
            named = [part["etag"] for part in json.loads(body)["parts"]]
            whole = b"".join(parts[number] for number in sorted(parts))
            if named != [f'"part-{number}"' for number in sorted(parts)] or hashlib.sha256(whole).hexdigest() != path[1]:
                return 400, {"error": "the parts are not the file"}
            hub.objects[path[1]] = whole
            return 200, {}
        if path == ["verify"]:
            wanted = json.loads(body)
            return (200 if len(hub.objects.get(wanted["oid"], b"")) == wanted["size"] else 400), {}
        return 404, {"error": "no such address"}

    def model(self, path, files, body):
        if not path or path[0] in ("revision", "tree"):
            return 200, {"sha": "0" * 40, "siblings": [{"rfilename": name} for name in files], "id": "x/y"}
        if path[0] == "preupload":
            return 200, {"files": [self.mode(file, files) for file in json.loads(body)["files"]]}
        if path[0] == "commit":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
            return 200, {"commitOid": "1" * 40, "commitUrl": f"{self.server.endpoint}/x/y/commit/{'1' * 40}", "success": True}
        return 404, {"error": "no such address"}

    def mode(self, file, files):
        large, stored = file["path"].endswith(LARGE), files.get(file["path"])
        oid = None
        if stored is not None:
            blob = f"blob {len(stored)}\0".encode() + stored
            oid = hashlib.sha256(stored).hexdigest() if large else hashlib.sha1(blob).hexdigest()
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def object(self, wanted):
        hub, oid, size = self.server, wanted["oid"], wanted["size"]
        if oid in hub.objects:
            return {"oid": oid, "size": size}
        # Another host, which gets no token.
        storage = f"{hub.endpoint.replace('127.0.0.1', 'localhost')}/storage/{oid}"
        upload = {"href": storage}
        if hub.part_size:
            numbers = range(1, -(-size // hub.part_size) + 1)
            header = {f"{number:05}": f"{storage}/{number}" for number in numbers}
            header["chunk_size"] = str(hub.part_size)
            upload = {"href": f"{hub.endpoint}/complete/{oid}", "header": header}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{hub.endpoint}/verify"}}}


def compare(gossamer, model, part_size):
    from huggingface_hub import HfApi

    hub = Hub(part_size)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "TMPDIR": folder, "HF_HUB_OFFLINE": "0",
        }
        push = [gossamer, "push", str(model), "ours/model", "--json"]
        done = json.loads(subprocess.run(push, check=True, capture_output=True, text=True, env=environment).stdout)
        ours = hub.repositories["ours/model"]
        assert sorted(ours) == sorted(file["name"] for file in done["files"])
        # The same files by the other client; what it finds in its folder is what we stored.
        copy = Path(folder) / "copy"
        for name, data in ours.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(data)
        hub.objects.clear()
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        api.create_repo("theirs/model", exist_ok=True)
        api.upload_folder(repo_id="theirs/model", folder_path=copy)
        theirs = hub.repositories["theirs/model"]
        assert ours == theirs, sorted(set(ours) ^ set(theirs))

        # Each finds that the other has nothing left to send.
        hub.repositories["ours/model"], hub.repositories["theirs/model"] = theirs, ours
        before = len(hub.requests)
        again = json.loads(subprocess.run(push, check=True, capture_output=True, text=True, env=environment).stdout)
        assert again["commit"] is None, again
        api.upload_folder(repo_id="theirs/model", folder_path=copy)
        assert not any("/commit/" in path for _, path in hub.requests[before:]), hub.requests[before:]
    hub.shutdown()
    size = sum(map(len, ours.values()))
    print(f"{len(ours)} files, {size:,} bytes, parts of {part_size or 'any size'}: equal")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gossamer", required=True, help="the program")
    parser.add_argument("--model", default=ROOT / "examples" / "model", help="what is pushed")
    arguments = parser.parse_args()
    # Its newer protocol needs a server of its own.
    os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    for part_size in (None, 100_000):
        compare(arguments.gossamer, arguments.model, part_size)


if __name__ == "__main__":
    sys.exit(main())
