"""A registry on loopback: the read-only half of the OCI distribution API (v2), and images to put in it."""
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(name, data=b"", mode=0o644, **fields):
    """One entry of a layer; type, linkname, uid … by keyword."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = mode
    info.mtime = 1600000000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def layer(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as t:
        for info, data in members:
            t.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return raw.getvalue()


class Registry:
    """with Registry() as r: r.add("app", "1", [layer, …], {"Cmd": […]}); r.host is HOST:PORT."""

    def __init__(self):
        self.blobs, self.tags, self.requests = {}, {}, []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()

    def put(self, data, media_type):
        self.blobs[digest(data)] = (data, media_type)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def add(self, name, tag, layers, config, architecture="amd64"):
        """LAYERS: uncompressed tars. Returns the manifest's digest."""
        whole = {"architecture": architecture, "os": "linux", "config": config,
                 "created": "2022-01-01T00:00:00Z",
                 "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": self.put(json.dumps(whole).encode(), CONFIG),
                    "layers": [self.put(gzip.compress(tar, 1, mtime=0), LAYER) for tar in layers]}
        data = json.dumps(manifest).encode()
        self.put(data, MANIFEST)
        self.tags[name, tag] = digest(data)
        return digest(data)

    def add_index(self, name, tag, by_architecture):
        """BY_ARCHITECTURE: {"amd64": manifest digest, …}"""
        entries = [{"mediaType": MANIFEST, "digest": d, "size": len(self.blobs[d][0]),
                    "platform": {"architecture": a, "os": "linux"}} for a, d in by_architecture.items()]
        data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
        self.put(data, INDEX)
        self.tags[name, tag] = digest(data)

    def answer(self, request):
        self.requests.append(request.path)
        parts = request.path.split("/")
        found = None
        if request.path == "/v2/":
            found = (b"{}", "application/json")
        elif len(parts) > 4 and parts[-2] in ("manifests", "blobs"):
            ref = self.tags.get(("/".join(parts[2:-2]), parts[-1]), parts[-1])
            found = self.blobs.get(ref)
        data, media_type = found or (b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}',
                                     "application/json")
        request.send_response(200 if found else 404)
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(data)))
        if found and len(parts) > 4:
            request.send_header("Docker-Content-Digest", digest(data))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)
