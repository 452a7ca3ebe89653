"""What a computer does to a long job: signals, a full disk, folders that vanish, files cut off, too little memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mupvss.cli import main
from mupvss.config.load import load_config, save_config
from mupvss.config.schema import RunConfig
from mupvss.data import folder as folder_source
from mupvss.engine import loop, trainer
from mupvss.engine.checkpoint import load_tensors
from mupvss.stages import stage
from mupvss.stages.stage import Run
from mupvss.stages.train import run_train

TIMES = ("seconds", "peak_mb", "images_per_s")


@pytest.fixture
def config(tiny_run, tmp_path):
    quick = tiny_run.model_copy(update={"baseline": False, "masks": tiny_run.masks.model_copy(update={"crf": "none"})})
    quick = quick.model_copy(update={"affinity": quick.affinity.model_copy(update={"kind": "patch"})})
    save_config(tmp_path / "c.toml", quick)
    return tmp_path / "c.toml"


def whole(out):
    """Every file of a run but the report, without what differs from run to run."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and "report" not in p.parts):
        name = str(path.relative_to(out))
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [{k: v for k, v in json.loads(line).items() if not k.endswith(TIMES)} for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "mupvss", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def test_nothing_is_trained_twice_when_the_figures_could_not_be_written(config, tmp_path, monkeypatch):
    """The moment between the end of a training and the file that says that the stage is done."""
    assert main(["train", str(config), "--out", str(tmp_path / "unbroken")]) == 0
    real = stage.write_json

    def full(path, value):
        if path.name == "metrics.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_json", full)
        assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: pytest.fail("a step was done again"))
        assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 0
    assert whole(tmp_path / "run") == whole(tmp_path / "unbroken")


def test_sigterm_saves_the_training_and_leaves(tiny_run, tmp_path):
    long = tiny_run.model_copy(update={"train": tiny_run.train.model_copy(update={"image_steps": 400, "checkpoint_every": 1000})})
    save_config(tmp_path / "c.toml", long)
    process = start("train", tmp_path / "c.toml", "--out", tmp_path / "run")
    log = tmp_path / "run" / "train" / "log.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "goes on from here" in said
    _, header = load_tensors(tmp_path / "run" / "train" / "state.safetensors")
    assert 10 <= header["step"] < 50
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "unbroken")]) == 0
    left, right = (load_tensors(tmp_path / name / "train" / "model.safetensors")[0] for name in ("run", "unbroken"))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_sigterm_between_pictures(config, tmp_path):
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 0
    process = start("seeds", config, "--out", tmp_path / "run", "--data.scenes.seeds", "24")
    maps = tmp_path / "run" / "seeds" / "maps" / "default"
    wait_for(lambda: len(list(maps.glob("*.npz"))) > 2, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert 2 < len(list(maps.glob("*.npz"))) < 24
    assert not list(tmp_path.rglob(".*.part*"))
    assert not (tmp_path / "run" / "seeds" / "metrics.json").exists()


def test_a_disk_that_is_full_at_any_write(config, tmp_path, monkeypatch, capsys):
    assert main(["run", str(config), "--out", str(tmp_path / "whole")]) == 0
    real = os.fsync
    for first in (1, 2, 3, 4, 5, 7, 11, 20, 35, 60, 75):
        calls = 0

        def full(descriptor, first=first):
            nonlocal calls
            calls += 1
            if calls >= first:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        out = tmp_path / "broken"
        shutil.rmtree(out, ignore_errors=True)
        monkeypatch.setattr(os, "fsync", full)
        capsys.readouterr()
        assert main(["run", str(config), "--out", str(out)]) == 1, first
        said = capsys.readouterr().err
        assert "No space left on device; free some space and run the same command again" in said
        assert "Traceback" not in said
        assert not list(out.rglob(".*.part*")) if out.exists() else True
        monkeypatch.setattr(os, "fsync", real)
        assert main(["run", str(config), "--out", str(out)]) == 0
        assert whole(out) == whole(tmp_path / "whole"), first


def test_killed_while_an_unfinished_stage_is_deleted(config, tmp_path, monkeypatch):
    """Other settings replace it; the kill falls into the deletion, after any number of files."""
    out = tmp_path / "run"
    assert main(["train", str(config), "--out", str(out)]) == 0
    (out / "train" / "metrics.json").unlink()
    real = shutil.rmtree

    def killed(folder, **options):
        if Path(folder).name == ".train.deleted" and Path(folder).exists():
            (Path(folder) / "stage.json").unlink()
            raise KeyboardInterrupt
        real(folder, **options)

    monkeypatch.setattr(stage.shutil, "rmtree", killed)
    assert main(["train", str(config), "--seed", "1", "--out", str(out)]) == 130
    monkeypatch.undo()
    assert main(["train", str(config), "--seed", "1", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "train"]


def test_folders_of_others_are_left_alone(config, tmp_path):
    for name in ("a.txt", ".git/HEAD"):
        path = tmp_path / name[:2] / "train" / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        assert main(["train", str(config), "--out", str(tmp_path / name[:2])]) == 1
        assert path.read_text() == "mine"


def test_a_signal_to_the_whole_group_with_workers(tiny_run, tmp_path):
    """Launchers stop whole process groups: the workers that load pictures must not go first."""
    train = tiny_run.train.model_copy(update={"image_steps": 4000, "checkpoint_every": 1000, "workers": 2})
    save_config(tmp_path / "c.toml", tiny_run.model_copy(update={"train": train}))
    process = start("train", tmp_path / "c.toml", "--out", tmp_path / "run", start_new_session=True)
    log = tmp_path / "run" / "train" / "log.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, process)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # and by the service manager once more
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "goes on from here" in said
    _, header = load_tensors(tmp_path / "run" / "train" / "state.safetensors")
    assert header["step"] >= 10


def test_a_stop_in_the_last_step_loses_nothing(config, tmp_path, monkeypatch):
    real = loop._step

    def stopped(*arguments):
        figures = real(*arguments)
        if arguments[2] >= 5 / 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return figures

    monkeypatch.setattr(loop, "_step", stopped)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", str(config), "--out", str(tmp_path / "unbroken")]) == 0
    assert whole(tmp_path / "run") == whole(tmp_path / "unbroken")


def test_a_folder_that_cannot_be_written(config, capsys):
    assert main(["train", str(config), "--out", "/proc/mupvss"]) == 1
    said = capsys.readouterr().err
    assert "/proc/mupvss" in said
    assert "Traceback" not in said


def test_pictures_that_vanish_and_come_back(tmp_path, monkeypatch, capsys):
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for i in range(8):
        path = root / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    run = RunConfig.model_validate_json(
        """{"data": {"source": "folder"}, "model": {"backbone": "micro", "patch_size": 8, "image_size": 32}, "threads": 2,
            "train": {"image_steps": 32, "batch_size": 4, "workers": 0, "checkpoint_every": 2, "warmup_steps": 1}}"""
    )
    run = run.model_copy(update={"data": run.data.model_copy(update={"root": root})})
    save_config(tmp_path / "c.toml", run)
    real, calls = folder_source.read_image, 0

    def vanishing(path):
        nonlocal calls
        calls += 1
        if calls == 20:
            root.rename(tmp_path / "unplugged")
        return real(path)

    monkeypatch.setattr(folder_source, "read_image", vanishing)
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 1
    assert "no such picture" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 1
    assert "no such folder; set data.root" in capsys.readouterr().err
    assert (tmp_path / "run" / "train" / "state.safetensors").is_file(), "what was reached is not lost meanwhile"
    (tmp_path / "unplugged").rename(root)
    monkeypatch.setattr(folder_source, "read_image", real)
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 0
    assert "going on from step 4" in capsys.readouterr().err


def test_a_checkpoint_that_is_cut_off(config, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(trainer, "save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["train", str(config), "--out", str(out)]) == 130
    monkeypatch.undo()
    state = out / "train" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1000])
    assert main(["train", str(config), "--out", str(out)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "state.safetensors: not a readable checkpoint" in said
    assert "Delete it, and this training begins anew" in said
    state.unlink()
    assert main(["train", str(config), "--out", str(out)]) == 0
    model = out / "train" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1000])
    assert main(["seeds", str(config), "--out", str(out)]) == 1
    assert "model.safetensors: not a readable checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
])  # fmt: skip
def test_too_little_memory_suggests_a_smaller_batch(config, tmp_path, capsys, monkeypatch, error):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(trainer, "batch_loss", exhausted)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "out of memory with batches of 8 pictures; lower train.batch_size (to 4, say)" in said


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_elsewhere_is_told_too(config, tmp_path, capsys, monkeypatch, error):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(trainer, "build_optimizer", exhausted)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.endswith("error: out of memory; make the pictures or train.batch_size smaller\n")


def test_what_fails_for_lack_of_memory_does_not_hide_it(config, tmp_path, monkeypatch):
    """As Python's own code may, in what is done after an error."""

    def exhausted(*_):
        raise MemoryError

    def broken(path, value):
        if path.name == "elapsed.json":
            raise SystemError("error return without exception set")
        real(path, value)

    real = stage.write_json
    monkeypatch.setattr(stage, "write_json", broken)
    monkeypatch.setattr(trainer, "build_optimizer", exhausted)
    with pytest.raises(MemoryError):
        run_train(Run(load_config(config), tmp_path / "run"))


@pytest.mark.parametrize(("first", "told"), [(MemoryError(), True), (KeyError(), False)])
def test_an_error_on_the_way_out_of_memory_is_told_as_that(config, tmp_path, capsys, monkeypatch, first, told):
    def exhausted(*_):
        try:
            raise first
        finally:
            raise SystemError("error return without exception set")

    monkeypatch.setattr(trainer, "build_optimizer", exhausted)
    command = ["train", str(config), "--out", str(tmp_path / "run")]
    if told:
        assert main(command) == 1
        assert "error: out of memory;" in capsys.readouterr().err
    else:
        with pytest.raises(SystemError):
            main(command)


def test_a_real_lack_of_memory_ends_in_a_sentence(config, tmp_path):
    """A process that may have little more than its libraries need, and asks for all of it at once: what asks for the last
    few bytes may be a library that does not look whether it got them."""
    code = (
        "import resource, sys; import mupvss.stages.run; from mupvss.cli import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000,) * 2)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    large = {"train.batch-size": 64, "train.image-steps": 128, "data.scenes.train": 16, "model.image-size": 256}
    options = [word for name, value in large.items() for word in (f"--{name}", str(value))]
    arguments = ["train", str(config), "--out", str(tmp_path / "run"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", code, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert found.returncode == 1, found.stderr[-2000:]
    assert "out of memory" in found.stderr
    assert "Traceback" not in found.stderr
