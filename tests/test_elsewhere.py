"""Other computers, as far as they can be pretended: Windows, macOS, Apple's GPU, processes that are spawned; a run that moves."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny
from PIL import Image

from mupvss import load
from mupvss.cli.main import main
from mupvss.config.load import save_config
from mupvss.data.tags import write_tags
from mupvss.errors import UserError
from mupvss.files import write_text
from mupvss.runtime.device import computed_in, own_cores, pick_device
from mupvss.runtime.launch import fall_back_to_the_cpu

IMPORT_ALL = """
import importlib, os, pkgutil, sys
sys.modules["resource"] = None
sys.modules["fcntl"] = None
for name in ("sched_getaffinity", "fork", "geteuid", "getuid", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
import mupvss
for module in pkgutil.walk_packages(mupvss.__path__, "mupvss."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from mupvss.runtime.memory import peak_memory_mb
from mupvss.runtime.device import own_cores
print(peak_memory_mb(), own_cores())
"""


@pytest.mark.slow
def test_every_module_is_imported_without_what_unix_alone_has():
    found = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    memory, cores = found.stdout.split()
    assert float(memory) == 0, "not told, and not made up"
    assert int(cores) == os.cpu_count()


def test_files_are_flushed_through_handles_that_may_write(tmp_path, monkeypatch):
    """Windows refuses to flush a file that is open for reading alone."""
    real = os.fsync

    def strict(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", strict)
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_apples_gpu_is_taken_where_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == pick_device("mps").type == "mps"
    assert computed_in(torch.device("mps"), "bf16") == "fp32"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no GPU of Apple's"):
        pick_device("mps")


def test_what_apples_gpu_lacks_is_done_by_the_cpu():
    for own in ({}, {"PYTORCH_ENABLE_MPS_FALLBACK": "0"}):
        environment = dict(own)
        fall_back_to_the_cpu(environment)
        assert environment == {"PYTORCH_ENABLE_MPS_FALLBACK": own.get("PYTORCH_ENABLE_MPS_FALLBACK", "1")}


def test_where_affinity_is_not_told_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert own_cores() == 6


@pytest.mark.slow
def test_readers_may_be_spawned(tmp_path):
    """As on Windows and macOS, where nothing is forked: every source's pictures travel to the process that reads them."""
    for name in ("cat/1.png", "dog/2.png"):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    code = "import multiprocessing, sys\nfrom mupvss.cli.main import main\n"
    code += "if __name__ == '__main__':\n    multiprocessing.set_start_method('spawn')\n    sys.exit(main(sys.argv[1:]))"
    (tmp_path / "start.py").write_text(code)
    for source in ({}, {"data.source": "folder", "data.root": tmp_path / "own"}):
        save_config(tmp_path / "c.toml", tiny({"workers": 1, "train.image_steps": 16, **source}))
        out = tmp_path / f"run{len(source)}"
        command = [sys.executable, str(tmp_path / "start.py"), "train", str(tmp_path / "c.toml"), "--out", str(out)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert found.returncode == 0, found.stderr[-2000:]
        assert (out / "train" / "metrics.json").is_file()


def test_a_table_with_windows_separators_finds_its_pictures(tmp_path):
    for i, name in enumerate(("a/1.png", "b/2.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    (tmp_path / "tags.csv").write_text("image,tags\na\\1.png,cat\nb\\2.png,dog\n")
    arguments = ["--source", "folder", "--root", str(tmp_path / "pictures"), "--tags", str(tmp_path / "tags.csv")]
    assert main(["data", "check", *arguments]) == 0


@pytest.mark.slow
def test_a_run_and_its_pictures_may_move(tmp_path, monkeypatch, capsys):
    """To another folder, as to another computer: nothing is made again, and whoever reads the run finds everything."""
    here = tmp_path / "here"
    rng, table = np.random.default_rng(0), {}
    for i in range(6):
        (here / "pictures").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(here / "pictures" / f"{i}.png")
        table[f"{i}.png"] = {"cat" if i % 2 else "dog"}
    write_tags(here / "tags.csv", table)
    own = {"data.source": "folder", "data.root": "pictures", "data.tags": "tags.csv", "train.image_steps": 16}
    save_config(here / "c.toml", tiny({**own, "segment.train.image_steps": 8}))
    monkeypatch.chdir(here)
    assert main(["run", "c.toml", "--out", "run"]) == 0
    monkeypatch.chdir(tmp_path)
    shutil.move(here, tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    capsys.readouterr()
    assert main(["run", "c.toml", "--out", "run"]) == 0
    assert capsys.readouterr().err.count("up to date") == 9
    for path in Path("run").rglob("*"):
        if path.suffix in (".json", ".toml", ".jsonl", ".html"):
            assert str(here) not in path.read_text(), path
    assert load("run")("pictures/0.png").labels.shape == (32, 32)
    assert main(["data", "doctor", "run"]) == 0
    assert main(["predict", "run", "pictures", "--out", "out", "--formats", "masks", "voc", "coco"]) == 0
    assert {entry["file_name"] for entry in json.loads(Path("out/coco.json").read_text())["images"]} == set(table)
