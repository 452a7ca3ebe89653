"""The studio's web server: a page, and the JSON, pictures and raw masks that it requests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel

from mupvss.data.decisions import STATUSES, State, Status
from mupvss.errors import CheckpointError, DataError, UserError
from mupvss.export.formats import FORMATS
from mupvss.report.plot import read_log
from mupvss.studio.entries import Entry
from mupvss.studio.guard import Guard, TooLargeError, check_length, checked_name, receive_file, stored
from mupvss.studio.workspace import Workspace

STATIC = Path(__file__).parent / "static"
THUMBNAIL, LARGEST = 160, 640
"""Side of thumbnails in pixels, and the largest that is made."""
MAX_MASK_BYTES = 200_000_000


class Tags(BaseModel):
    tags: list[str]


class Names(BaseModel):
    names: list[str]


class Export(BaseModel):
    formats: list[str]
    accepted_only: bool = True


def create_app(workspace: Workspace, port: int, host: str = "127.0.0.1", token: str | None = None) -> Any:
    """The guarded ASGI application."""
    app = FastAPI(title="mupvss studio", docs_url=None, redoc_url=None, openapi_url=None)
    _errors(app)
    _reading(app, workspace)
    _changing(app, workspace)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    return Guard(app, port, host, token)


def _errors(app: FastAPI) -> None:
    """An error that the user can fix is returned as one sentence; everything else stays on the server."""

    def answer(status: int) -> Callable[[Request, Exception], JSONResponse]:
        return lambda request, error: JSONResponse({"error": str(error)}, status)

    for kind, status in ((TooLargeError, 413), (DataError, 422), (CheckpointError, 422), (ValueError, 422)):
        app.add_exception_handler(kind, answer(status))
    app.add_exception_handler(HTTPException, lambda request, error: JSONResponse({"error": error.detail}, error.status_code))
    app.add_exception_handler(OSError, lambda request, error: JSONResponse({"error": f"disk error: {error}"}, 507))


def _reading(app: FastAPI, workspace: Workspace) -> None:
    @app.get("/api/project")
    def project() -> dict[str, Any]:
        return {
            "name": workspace.run.resolve().name,
            "classes": list(workspace.classes),
            "colours": [list(colour) for colour in workspace.colours],
            "formats": list(FORMATS),
            "kinds": list(workspace.kinds),
            "threshold": workspace.threshold,
            "pictures": [_summary(workspace, entry) for entry in workspace.ranked()],
        }

    @app.get("/api/pictures/{name}")
    def picture(name: str) -> dict[str, Any]:
        entry = _entry(workspace, name)
        width, height = workspace.picture(entry).size
        return {**_summary(workspace, entry), "width": width, "height": height}

    @app.get("/api/pictures/{name}/image")
    def image(name: str) -> Response:
        return _as_file(workspace.picture(_entry(workspace, name)), "JPEG", quality=92)

    @app.get("/api/pictures/{name}/thumbnail")
    def thumbnail(name: str, side: int = THUMBNAIL, mask: bool = True) -> Response:
        """A small copy of the picture, with its mask if there is one already."""
        small = workspace.thumbnail(_entry(workspace, name), min(max(side, 16), LARGEST), mask)
        return _as_file(small, "JPEG", quality=80)

    @app.get("/api/next")
    def next_pictures(count: int = 20) -> list[str]:
        return workspace.next(min(max(count, 1), 200))

    @app.get("/api/pictures/{name}/region")
    def region(name: str, x: int, y: int, tag: str = "", reach: float = 0.3) -> Response:
        """One byte per pixel, row by row: 1 in the region around the click."""
        found = workspace.region(_entry(workspace, name), x, y, tag, reach)
        return Response(found.astype(np.uint8).tobytes(), media_type="application/octet-stream")

    @app.get("/api/pictures/{name}/map")
    def one_map(name: str, kind: str, tag: str) -> Response:
        """Grey picture: 255 where the map is 1."""
        entry = _entry(workspace, name)
        if kind not in workspace.kinds or tag not in workspace.classes:
            raise UserError(f"no map '{kind[:40]}' of '{tag[:40]}'; maps: {', '.join(workspace.kinds)}")
        seeds = workspace.seeds(entry, kind)
        index = np.flatnonzero(seeds.ids == workspace.classes.index(tag) + 1)
        if len(index) == 0:
            raise UserError(f"'{tag}' is not among the tags of this picture; add it first")
        grey = (255 * seeds.maps[index[0]].astype(np.float32).clip(0, 1)).astype(np.uint8)
        return _as_file(Image.fromarray(grey), "PNG")

    @app.get("/api/pictures/{name}/labels")
    def labels(name: str, threshold: float | None = None, refine: bool = False) -> Response:
        """One byte per pixel, row by row: the class id."""
        entry = _entry(workspace, name)
        found = workspace.labels(entry, threshold, refine)
        return Response(found.astype(np.uint8).tobytes(), media_type="application/octet-stream")

    @app.get("/api/progress")
    def progress() -> dict[str, Any]:
        """The last lines of each training's log, while it runs and afterwards."""
        stages = {}
        for stage, path in workspace.finished.logs().items():
            lines = read_log(path)[-200:]
            stages[stage] = {
                "steps": [entry.get("step") for entry in lines],
                "losses": [entry.get("loss") for entry in lines],
                "done": bool(workspace.finished.metrics(stage)),
            }
        return stages


def _changing(app: FastAPI, workspace: Workspace) -> None:
    @app.put("/api/pictures/{name}/tags")
    def retag(name: str, body: Tags) -> dict[str, Any]:
        entry = _entry(workspace, name)
        workspace.retag(entry, body.tags)
        return _summary(workspace, entry)

    @app.put("/api/pictures/{name}/decision")
    async def decide(name: str, status: str, request: Request) -> dict[str, Any]:
        """Body: nothing, or the mask, one byte per pixel."""
        entry = _entry(workspace, name)
        if status not in STATUSES:
            raise UserError(f"status is '{status[:40]}'; expected one of {', '.join(STATUSES)}")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_MASK_BYTES:
                raise TooLargeError("a mask of more pixels than any picture has")
        # Pictures are decoded and masks written outside the event loop, which answers other requests meanwhile.
        return await run_in_threadpool(_decide, workspace, entry, status, bytes(body))

    @app.post("/api/accept")
    def accept(body: Names) -> dict[str, Any]:
        """Accepts the masks shown for several pictures; pictures without a mask are returned as `left`."""
        entries = [_entry(workspace, name) for name in body.names]
        done = set(workspace.accept(body.names))
        return {
            "accepted": [_summary(workspace, entry) for entry in entries if entry.name in done],
            "left": [entry.file for entry in entries if entry.name not in done],
        }

    @app.post("/api/pictures/{name}/undo")
    def undo(name: str) -> dict[str, Any]:
        entry = _entry(workspace, name)
        workspace.undo(entry)
        return _summary(workspace, entry)

    @app.put("/api/upload")
    async def upload(name: str, request: Request) -> dict[str, Any]:
        """Body: the file itself."""
        check_length(request.headers.get("content-length"))
        checked_name(name)
        temporary = await receive_file(request.stream(), workspace.folder / "pictures")
        return await run_in_threadpool(_add, workspace, temporary, name)

    @app.post("/api/export")
    def export(body: Export) -> dict[str, Any]:
        out, count = workspace.export(body.formats, body.accepted_only)
        archive = workspace.folder / "export.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
            for path in sorted(p for p in out.rglob("*") if p.is_file()):
                stream.write(path, path.relative_to(out))
        return {"pictures": count, "folder": str(out), "archive": "/api/export.zip"}

    @app.get("/api/export.zip")
    def download() -> FileResponse:
        archive = workspace.folder / "export.zip"
        if not archive.is_file():
            raise HTTPException(404, "nothing is exported yet")
        return FileResponse(archive, filename=f"{workspace.run.resolve().name}-masks.zip")


def _entry(workspace: Workspace, name: str) -> Entry:
    try:
        return workspace.entry(name)
    except KeyError:
        raise HTTPException(404, f"no picture '{name[:80]}' in this studio") from None


def _decide(workspace: Workspace, entry: Entry, status: Status, body: bytes) -> dict[str, Any]:
    workspace.decide(entry, status, _mask(workspace, entry, body))
    return _summary(workspace, entry)


def _add(workspace: Workspace, temporary: Path, name: str) -> dict[str, Any]:
    with workspace.adding:
        return _summary(workspace, workspace.add(stored(temporary, name, workspace.entries)))


def _summary(workspace: Workspace, entry: Entry) -> dict[str, Any]:
    state: State = workspace.state(entry)
    return {
        "name": entry.name,
        "file": entry.file,
        "doubt": workspace.doubts.get(entry.name),
        "given": list(entry.tags),
        "undo": workspace.can_undo(entry),
        **asdict(state),
    }


def _mask(workspace: Workspace, entry: Entry, body: bytes) -> np.ndarray | None:
    if not body:
        return None
    width, height = workspace.picture(entry).size
    if len(body) != width * height:
        raise UserError(f"{entry.name}: {len(body)} bytes for a mask of {width} x {height} pixels; expected {width * height}")
    return np.frombuffer(body, np.uint8).reshape(height, width)


def _as_file(image: Image.Image, kind: str, **options: Any) -> Response:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Response(buffer.getvalue(), media_type=f"image/{kind.lower()}", headers={"cache-control": "no-cache"})
