"""A small finished run to look at, and its studio on a real port."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest
import uvicorn
from helpers import red_and_blue, tiny

from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run
from mupvss.studio.server import create_app
from mupvss.studio.workspace import Workspace


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Six pictures of red and blue blocks, a classifier and its seeds."""
    root = tmp_path_factory.mktemp("studio")
    red_and_blue(root, "block {}.jpg", 60, 80)
    own = {"data.source": "folder", "data.root": root / "pictures", "data.tags": root / "tags.csv"}
    run = Run(tiny({**own, "train.image_steps": 32, "search.scales": [1.0]}), root / "run")
    for stage in ("train", "seeds"):
        run_one(run, stage)
    return root / "run"


@pytest.fixture
def run(trained, tmp_path):
    """The run, with nothing decided yet."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def studio(run):
    """(address, workspace) of a running studio."""
    workspace = Workspace(run, device="cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(workspace, port), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", workspace
    server.should_exit = True
    thread.join(10)
