"""What a computer does to a long job: signals, a full disk, folders that vanish, files cut off, too little memory."""

from __future__ import annotations

import contextlib
import errno
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
from helpers import TIMES, at_step, at_write, tiny, whole
from PIL import Image

from mupvss.cli.main import FAULT, main
from mupvss.config.load import load_config, save_config
from mupvss.files import read_json
from mupvss.model.checkpoint import load_tensors
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.device import own_cores
from mupvss.stages import masks as masks_stage
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run, alone_in, stage_fingerprint


@pytest.fixture
def config(tmp_path):
    save_config(tmp_path / "c.toml", tiny({"baseline": False, "masks.crf": "none", "affinity.kind": "none"}))
    return tmp_path / "c.toml"


def start(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": str(own_cores())}
    command = [sys.executable, "-m", "mupvss", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.slow
def test_nothing_is_trained_twice_when_the_figures_could_not_be_written(config, tmp_path, monkeypatch):
    """The moment between the end of a training and the file that says that the stage is done."""
    assert main(["train", str(config), "--out", str(tmp_path / "unbroken")]) == 0

    def full(name, count):
        if "metrics.json" in name:
            raise OSError(errno.ENOSPC, "No space left on device", name)

    with monkeypatch.context() as patch:
        at_write(patch, full)
        assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    with monkeypatch.context() as patch:
        at_step(patch, lambda step: pytest.fail("a step was done again"))
        assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 0
    assert whole(tmp_path / "run") == whole(tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "place", "name", "calls"),
    [("masks", masks_stage, "pseudo_mask", 1), ("val", SegmentationPredictor, "predict", 2)],
)
def test_pictures_and_their_figures_go_on_where_they_stopped(tmp_path, monkeypatch, stage, place, name, calls):
    """A stop between two pictures: what was drawn is not drawn again, and the figures are those of an unbroken run."""
    save_config(tmp_path / "c.toml", tiny({"baseline": False, "affinity.kind": "none"}))
    assert main(["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "unbroken")]) == 0
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "unbroken", again)
    (again / stage / "metrics.json").unlink()
    real, drawn = getattr(place, name), []

    def counted(*arguments, **options):
        drawn.append(1)
        if len(drawn) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, counted)
    assert main([stage, str(tmp_path / "c.toml"), "--out", str(again)]) != 0
    assert len(drawn) == 4
    assert list((again / stage).glob("sums-*.npz"))
    assert main([stage, str(tmp_path / "c.toml"), "--out", str(again)]) == 0
    assert len(drawn) == calls * len(list((again / stage).rglob("full/*.png" if stage == "masks" else "masks/*.png")))
    assert not list((again / stage).glob("sums-*.npz"))
    assert figures(again / stage) == figures(tmp_path / "unbroken" / stage)


def figures(folder):
    return {key: value for key, value in read_json(folder / "metrics.json").items() if key not in TIMES}


@pytest.mark.slow
def test_back_to_the_settings_of_before(config, tmp_path, monkeypatch, capsys):
    """An option mistyped: the training that was set aside is used again, and nothing is trained twice."""
    out, other = tmp_path / "run", ["--train.lr", "0.5"]
    assert main(["train", str(config), "--out", str(out)]) == 0
    made = whole(out)

    def stop(step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, stop)
        assert main(["train", str(config), "--out", str(out), *other]) != 0
    at_step(monkeypatch, lambda step: pytest.fail("it was trained again"))
    capsys.readouterr()
    assert main(["train", str(config), "--out", str(out)]) == 0
    assert "the earlier result is the one that is asked for" in capsys.readouterr().err
    assert whole(out) == made
    monkeypatch.undo()
    assert main(["train", str(config), "--out", str(out), *other]) == 0
    at_step(monkeypatch, lambda step: pytest.fail("it was trained again"))
    for arguments in ([], other):  # two finished results change places
        assert main(["train", str(config), "--out", str(out), *arguments]) == 0
        assert stage_fingerprint(out / "train") != stage_fingerprint(out / "train.earlier") != ""
    for kept, arguments in (("train", []), ("train.earlier", other)):  # killed while they did
        (out / kept).replace(out / ".train.exchanged")
        assert main(["train", str(config), "--out", str(out), *arguments]) == 0
        assert stage_fingerprint(out / "train") != stage_fingerprint(out / "train.earlier") != ""
        assert not (out / ".train.exchanged").exists()


def test_two_commands_in_one_folder(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mupvss.stages.run_folder.WAITED", 0.1)
    with alone_in(tmp_path / "run"):
        assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    assert "another mupvss is working in this folder" in capsys.readouterr().err
    assert not (tmp_path / "run" / "train").exists()


@pytest.mark.slow
def test_sigterm_saves_the_training_and_leaves(tmp_path):
    save_config(tmp_path / "c.toml", tiny({"train.image_steps": 200, "checkpoint_every": 1000}))
    process = start("train", tmp_path / "c.toml", "--out", tmp_path / "run")
    log = tmp_path / "run" / "train" / "log.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "goes on from here" in said
    _, header = load_tensors(tmp_path / "run" / "train" / "state.safetensors")
    assert 10 <= header["step"] < 25
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "unbroken")]) == 0
    left, right = (load_tensors(tmp_path / name / "train" / "model.safetensors")[0] for name in ("run", "unbroken"))
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
def test_sigterm_between_pictures(config, tmp_path):
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 0
    process = start("seeds", config, "--out", tmp_path / "run", "--data.scenes.seeds", "24")
    maps = tmp_path / "run" / "seeds" / "maps" / "attended_search_refined"
    wait_for(lambda: len(list(maps.glob("*.npz"))) > 2, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert 2 < len(list(maps.glob("*.npz"))) < 24
    assert not list(tmp_path.rglob(".*.part*"))
    assert not (tmp_path / "run" / "seeds" / "metrics.json").exists()


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write(config, tmp_path, monkeypatch, capsys):
    assert main(["run", str(config), "--out", str(tmp_path / "whole")]) == 0
    real = os.fsync
    for first in (1, 5, 35, 75):
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


@pytest.mark.slow
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

    monkeypatch.setattr(shutil, "rmtree", killed)
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


@pytest.mark.slow
def test_a_signal_to_the_whole_group_with_workers(tmp_path):
    """Launchers stop whole process groups: the workers that load pictures must not go first."""
    long = {"train.image_steps": 4000, "checkpoint_every": 1000, "workers": 2}
    save_config(tmp_path / "c.toml", tiny(long))
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


@pytest.mark.slow
def test_a_stop_in_the_last_step_loses_nothing(config, tmp_path, monkeypatch):
    at_step(monkeypatch, lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 6 else None)
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


@pytest.mark.slow
def test_pictures_that_vanish_and_come_back(tmp_path, monkeypatch, capsys):
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for i in range(8):
        path = root / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    own = {"data.source": "folder", "data.root": root, "train.image_steps": 32, "train.batch_size": 4}
    save_config(tmp_path / "c.toml", tiny(own))
    real, calls = Image.open, 0

    def vanishing(stream, *arguments, **options):
        nonlocal calls
        calls += 1
        found = real(stream, *arguments, **options)
        if calls == 27:  # eight of them before the training
            root.rename(tmp_path / "unplugged")
        return found

    monkeypatch.setattr(Image, "open", vanishing)
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 1
    assert "no such picture" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 1
    assert "no such folder; set data.root" in capsys.readouterr().err
    assert (tmp_path / "run" / "train" / "state.safetensors").is_file(), "what was reached is not lost meanwhile"
    (tmp_path / "unplugged").rename(root)
    monkeypatch.setattr(Image, "open", real)
    assert main(["train", str(tmp_path / "c.toml"), "--out", str(tmp_path / "run")]) == 0
    assert "going on from step 4" in capsys.readouterr().err


@pytest.mark.slow
def test_a_picture_that_is_cut_off_ends_the_training_in_a_line(tmp_path):
    """A real process with reader processes: it names the picture, and ends."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for i in range(8):
        path = root / ("cat" if i % 2 else "dog") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:400])
    own = {"data.source": "folder", "data.root": root, "train.image_steps": 32, "train.batch_size": 4}
    for workers in (0, 1):
        save_config(tmp_path / "c.toml", tiny({**own, "workers": workers}))
        process = start("train", tmp_path / "c.toml", "--out", tmp_path / f"run-{workers}", start_new_session=True)
        try:
            said = process.communicate(timeout=90)[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 1, said
        last = said.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "7.jpg: cannot be read as a picture" in last
        assert "Traceback" not in said


@pytest.mark.slow
def test_a_checkpoint_that_is_cut_off(config, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"

    def stopped(name, count):
        if "model.safetensors" in name:
            raise KeyboardInterrupt

    at_write(monkeypatch, stopped)
    assert main(["train", str(config), "--out", str(out)]) == 130
    monkeypatch.undo()
    state = out / "train" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1000])
    assert main(["train", str(config), "--out", str(out)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "state.safetensors: not a readable checkpoint" in said
    assert "Delete it, and this training starts over" in said
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
    def exhausted(*_, **__):
        raise error

    monkeypatch.setattr(torch.Tensor, "backward", exhausted)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "out of memory with batches of 8 pictures; lower train.batch_size (to 4, say)" in said


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_elsewhere_is_told_too(config, tmp_path, capsys, monkeypatch, error):
    def exhausted(*_, **__):
        raise error

    monkeypatch.setattr(torch.optim.AdamW, "__init__", exhausted)
    assert main(["train", str(config), "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.endswith("error: out of memory; reduce model.image_size or train.batch_size\n")


def test_what_fails_for_lack_of_memory_does_not_hide_it(config, tmp_path, monkeypatch):
    """As Python's own code may, in what is done after an error."""

    def exhausted(*_, **__):
        raise MemoryError

    def broken(name, count):
        if "elapsed.json" in name:
            raise SystemError("error return without exception set")

    at_write(monkeypatch, broken)
    monkeypatch.setattr(torch.optim.AdamW, "__init__", exhausted)
    with pytest.raises(MemoryError):
        run_one(Run(load_config(config), tmp_path / "run"), "train")


@pytest.mark.parametrize(("first", "told"), [(MemoryError(), True), (KeyError(), False)])
def test_an_error_on_the_way_out_of_memory_is_told_as_that(config, tmp_path, capsys, monkeypatch, first, told):
    def exhausted(*_, **__):
        try:
            raise first
        finally:
            raise SystemError("error return without exception set")

    monkeypatch.setattr(torch.optim.AdamW, "__init__", exhausted)
    command = ["train", str(config), "--out", str(tmp_path / "run")]
    assert main(command) == (1 if told else FAULT)
    assert ("error: out of memory;" in capsys.readouterr().err) == told


@pytest.mark.slow
def test_a_real_lack_of_memory_ends_in_a_sentence(config, tmp_path):
    """A process that may have little more than its libraries need, and asks for all of it at once: what asks for the last
    few bytes may be a library that does not look whether it got them."""
    code = (
        "import resource, sys; import mupvss.stages.run; from mupvss.cli.main import main\n"
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
