"""How long a second person waits for the studio while an upload and a search run.

    python benchmarks/studio_latency.py runs/mine

Prints the median, the 95th percentile and the longest of 50 requests (thumbnails, a picture, its mask, its data, the list), once
while nothing else runs, and once beside uploads that are scored and pictures that are searched with other tags. Decisions go into
a temporary folder.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

from mupvss.studio.server import create_app
from mupvss.studio.workspace import Workspace

REQUESTS = 50


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(sys.argv[1]), Path(folder), device="cpu")
        server = uvicorn.Server(uvicorn.Config(create_app(workspace, 8799), port=8799, log_level="warning"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.05)
        names = list(workspace.entries)
        report("nothing else", waits(names))
        stop = threading.Event()
        busy = [threading.Thread(target=work, args=(names[::-1], stop)) for work in (upload, search)]
        for thread in busy:
            thread.start()
        time.sleep(1)
        report("beside uploads and searches", waits(names))
        stop.set()
        for thread in busy:
            thread.join()
        server.should_exit = True


def ask(path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request("http://127.0.0.1:8799" + path, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return answer.read()


def address(name: str, part: str = "") -> str:
    return f"/api/pictures/{urllib.parse.quote(name, safe='')}{part}"


def waits(names: list[str]) -> list[float]:
    """Seconds of each request, one after the other as a person clicks."""
    paths = ["/thumbnail", "/thumbnail", "/image", "/labels", ""]
    asked = [address(names[i % len(names)], paths[i % len(paths)]) for i in range(REQUESTS - 2)] + ["/api/project"] * 2
    found = []
    for path in asked:
        begin = time.perf_counter()
        ask(path)
        found.append(time.perf_counter() - begin)
        time.sleep(0.05)
    return found


def upload(names: list[str], stop: threading.Event) -> None:
    stream = io.BytesIO()
    Image.effect_noise((1600, 1200), 80).convert("RGB").save(stream, "JPEG")
    while not stop.is_set():
        ask("/api/upload?name=more.jpg", "PUT", stream.getvalue())


def search(names: list[str], stop: threading.Event) -> None:
    """Every picture with all tags, so that none of the run's maps can be used."""
    classes = json.loads(ask("/api/project"))["classes"]
    for name in names:
        if stop.is_set():
            return
        ask(address(name, "/tags"), "PUT", json.dumps({"tags": classes}).encode(), **{"content-type": "application/json"})
        ask(address(name, "/labels"))


def report(title: str, found: list[float]) -> None:
    middle, high = np.percentile(found, [50, 95])
    print(f"{title}: median {1000 * middle:.0f} ms, 95th percentile {1000 * high:.0f} ms, longest {1000 * max(found):.0f} ms")


if __name__ == "__main__":
    main()
