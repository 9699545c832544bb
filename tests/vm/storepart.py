"""Of a store with many images, the part that the tests use: the default kernel, and some images."""
import json

IMAGES = ("busybox", "debian")


def store_part(store, kernel, images=IMAGES):
    """{name in the store: its path, or its bytes where they are others}."""
    index = json.loads((store / "index.json").read_text())
    index["manifests"] = [m for m in index["manifests"]
                          if m["annotations"]["org.opencontainers.image.ref.name"] in (kernel, *images)]
    digests = set()
    for m in index["manifests"]:
        manifest = json.loads((store / "blobs/sha256" / m["digest"].removeprefix("sha256:")).read_text())
        digests |= {m["digest"], manifest["config"]["digest"], *(b["digest"] for b in manifest["layers"])}
    part = {"index.json": json.dumps(index).encode(), "oci-layout": store / "oci-layout"}
    for digest in sorted(digests):
        for name in (f"blobs/sha256/{digest.removeprefix('sha256:')}", f"verified/{digest.removeprefix('sha256:')}"):
            if (store / name).exists():
                part[name] = store / name
    return part
