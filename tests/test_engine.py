"""Training: resumed equals unbroken, checkpoints travel, what diverges says why."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from helpers import TINY_VIT, at_step, network_of, pretend_bf16, tiny
from PIL import Image, ImageEnhance

from mupvss.config.load import save_config
from mupvss.data.augment import Views, random_crop_box, random_view
from mupvss.data.preprocess import normalise
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.errors import CheckpointError, DataError, TrainingDivergedError
from mupvss.files import atomic_path
from mupvss.methods import find_method
from mupvss.methods.checkpoint import read_model
from mupvss.methods.mupvss import MUPVSS, MupvssOptions
from mupvss.model.checkpoint import load_tensors, save_tensors
from mupvss.options import TrainConfig
from mupvss.runtime.device import computed_in, own_cores
from mupvss.training.batches import MOST_READERS, Manner, batches, reading_processes
from mupvss.training.classifier import prototype_variance, train_classifier, weighted_sum
from mupvss.training.loop import learning_rate_factor, remove_states

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Training:
    dataset: Dataset
    train: TrainConfig
    manner: Manner = field(default_factory=lambda: Manner(CPU, workers=0, checkpoint_every=2))
    method: str = "mupvss"
    options: dict = field(default_factory=dict)

    def __call__(self, folder, identity="this"):
        method = find_method(self.method)
        options = method.options(**self.options)
        return train_classifier(method, TINY_VIT, options, self.train, 0, self.dataset, self.manner, folder, identity)


@pytest.fixture
def training(tiny_run):
    return Training(load_dataset(tiny_run.data, "train"), tiny_run.train)


def tensors(path):
    return load_tensors(path / "model.safetensors")[0]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_training_lowers_the_loss_and_can_be_read_back(training, tmp_path):
    long = dataclasses.replace(training, train=TrainConfig(image_steps=320, batch_size=8, warmup_steps=5, lr=1e-3))
    long(tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 40
    assert log[-1]["classification"] < log[0]["classification"]
    assert 0 < log[-1]["prototype_variance"] <= 1
    state, info = read_model(tmp_path / "model.safetensors")
    assert info.classes == training.dataset.classes
    info.build().load_state_dict(state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "model.safetensors", "state.safetensors"]
    figures = {**log[-1], "precision": computed_in(CPU, "bf16"), "device": "cpu"}
    assert long(tmp_path) == figures, "a finished training has no step left"
    remove_states(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "model.safetensors"]


@pytest.fixture
def calls(monkeypatch):
    """The training steps made, the fourth of which is interrupted."""

    def interrupted(step):
        if step == 4:
            raise KeyboardInterrupt

    return at_step(monkeypatch, interrupted)


@pytest.mark.parametrize("method", ["mupvss", "vit-cam"])
def test_interrupted_training_resumes_bit_equal(training, tmp_path, calls, method):
    training = dataclasses.replace(training, method=method)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "broken")
    assert (tmp_path / "broken" / "state.safetensors").is_file()
    training(tmp_path / "broken")
    assert len(calls) == 3 + 1 + 4  # steps 1-3, the interrupted 4th, then 3-6 from the checkpoint after step 2
    training(tmp_path / "whole")
    assert_equal(tensors(tmp_path / "whole"), tensors(tmp_path / "broken"))


@pytest.mark.parametrize(("units", "then", "expected"), [(False, True, "mixed"), (True, False, "mixed"), (False, False, "fp32")])
def test_resumed_where_the_other_precision_is_used(training, tmp_path, monkeypatch, capsys, calls, units, then, expected):
    pretend_bf16(monkeypatch, units)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path)
    pretend_bf16(monkeypatch, then)
    assert training(tmp_path)["precision"] == expected
    assert training(tmp_path)["precision"] == expected, "the state of the finished training knows it too"
    told = f"going on from step 2; precision {'bf16' if then else 'fp32'}, before {'bf16' if units else 'fp32'}\n"
    assert (told in capsys.readouterr().err) == (expected == "mixed")


@pytest.mark.parametrize(("device", "told"), [("A card", "going on from step 2; device cpu, before A card\n"), (None, "unknown")])
def test_resumed_on_another_device(training, tmp_path, capsys, calls, device, told):
    """None: a state of an earlier version, which does not say; what it was computed on is not made up."""
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path)
    state = tmp_path / "state.safetensors"
    saved, header = load_tensors(state)
    save_tensors(state, saved, {k: v for k, v in (header | {"device": device}).items() if v is not None})
    assert training(tmp_path)["device"] == "mixed"
    assert told in capsys.readouterr().err
    assert training(tmp_path)["device"] == "mixed", "where nothing is left to do nothing is computed"


def test_a_gpu_is_read_for_by_more_processes_than_a_cpu(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert [reading_processes(None, torch.device(kind)) for kind in ("cpu", "cuda")] == [1, 6]
    assert [reading_processes(3, torch.device(kind)) for kind in ("cpu", "cuda")] == [3, 3]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(96)))
    assert reading_processes(None, torch.device("cuda")) == MOST_READERS


@pytest.mark.slow
def test_killed_training_resumes_bit_equal(tmp_path):
    """A real process, really killed."""
    save_config(tmp_path / "c.toml", tiny({"train.image_steps": 120, "checkpoint_every": 1}))
    command = [sys.executable, "-m", "mupvss", "train", str(tmp_path / "c.toml"), "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(own_cores())}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stderr=subprocess.PIPE)
    state = tmp_path / "killed" / "train" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it finished before it could be killed"
    assert not (tmp_path / "killed" / "train" / "model.safetensors").exists()
    resumed = subprocess.run([*command, str(tmp_path / "killed")], check=True, env=environment, capture_output=True, text=True)
    assert "going on from step" in resumed.stderr
    assert_equal(tensors(tmp_path / "whole" / "train"), tensors(tmp_path / "killed" / "train"))


def test_workers_do_not_change_the_pictures(training):
    def first(workers):
        loader = batches(training.dataset, training.train, 32, 0, 1, 4, Manner(CPU, workers))
        return [(batch.on(CPU)[0], batch.origins) for batch in loader]

    for (a, names), (b, other) in zip(first(0), first(2), strict=True):
        assert torch.equal(a, b)
        assert names == other


def test_every_picture_once_per_epoch(training):
    config = training.train.model_copy(update={"batch_size": 6})
    manner = Manner(CPU, 0)
    epochs = [
        [o for b in batches(training.dataset, config, 32, 0, 4 * e, 4 * e + 4, manner) for o in b.origins] for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(s.origin for s in training.dataset.samples)
    assert epochs[0] != epochs[1]


def test_non_finite_loss_names_the_pictures(training, tmp_path):
    far = dataclasses.replace(training, train=training.train.model_copy(update={"lr": 1e30}))
    with pytest.raises(TrainingDivergedError, match=r"scene \d+ of seed"):
        far(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_data_sets_that_cannot_train(training, tmp_path):
    for dataset, message in [
        (Dataset(("a",), []), "no picture"),
        (Dataset((), training.dataset.samples), "no class"),
        (Dataset(("a",), [dataclasses.replace(s, tags=frozenset()) for s in training.dataset.samples]), "no training picture"),
    ]:
        with pytest.raises(DataError, match=message):
            dataclasses.replace(training, dataset=dataset)(tmp_path)


def test_another_training_is_never_resumed(training, tmp_path, calls):
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path)
    training(tmp_path, identity="another")
    assert len(calls) == 4 + 6, "from its first step on"


def test_checkpoints_of_the_wrong_kind(tmp_path, training):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_model(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        read_model(tmp_path / "x.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not written by mupvss"):
        read_model(tmp_path / "x.safetensors")
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"format": 99})
    with pytest.raises(CheckpointError, match="format 99"):
        read_model(tmp_path / "x.safetensors")
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"step": 3, "identity": ""})
    with pytest.raises(CheckpointError, match="training state"):
        read_model(tmp_path / "x.safetensors")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def torn_write():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        torn_write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_schedule_and_ramps():
    factors = [learning_rate_factor(s, 100, 10) for s in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1
    assert factors[100] == pytest.approx(0)


def test_weights_of_the_losses_along_the_training(training):
    """Ramp of CCP and CIP, late start of the patch-wise P2P."""
    network = network_of()
    features, tags = network(torch.randn(2, 3, 32, 32)), torch.ones(2, 3)
    options = MupvssOptions(ccp=2, cip=4, p2p=8, p2p_dense=16, ramp=0.5)

    def weights(progress):
        return {name: weight for name, (weight, _) in MUPVSS.losses(network, features, tags, options, progress).items()}

    assert weights(0) == {"classification": 1, "ccp": 0, "cip": 0, "p2p": 8, "p2p_dense": 0}
    assert weights(0.375) == pytest.approx({"classification": 1, "ccp": 1.5, "cip": 3, "p2p": 8, "p2p_dense": 8})
    assert weights(1) == {"classification": 1, "ccp": 2, "cip": 4, "p2p": 8, "p2p_dense": 16}
    losses = {"a": (2.0, torch.tensor(3.0)), "b": (0.5, torch.tensor(4.0))}
    assert weighted_sum(losses).item() == 8


def test_prototype_variance():
    same = torch.randn(1, 3, 8).expand(4, -1, -1)
    assert prototype_variance(same).item() == pytest.approx(0, abs=1e-6)
    assert prototype_variance(torch.cat((same, -same))).item() == pytest.approx(1)


def test_crops_stay_inside_and_keep_their_share():
    rng = np.random.default_rng(0)
    for size in ((100, 60), (7, 300), (1, 1)):
        for _ in range(50):
            left, top, right, bottom = random_crop_box(size, (0.3, 1.0), rng)
            assert -1e-9 <= left < right <= size[0] + 1e-9
            assert -1e-9 <= top < bottom <= size[1] + 1e-9
            if size == (100, 60):
                assert 0.29 < (right - left) * (bottom - top) / 6000 <= 1.001
    image = Image.fromarray(rng.integers(0, 255, (60, 100, 3), np.uint8))
    assert random_view(image, 32, (0.3, 1.0), True, 0.3, rng).pixels.shape == (32, 32, 3)


def test_a_batch_looks_as_pillow_would_have_it():
    """Mirror and brightness on the whole batch, against the same picture by picture."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    views = [random_view(image, 32, (0.3, 1.0), True, 0.6, rng) for _ in range(24)]
    assert {view.mirrored for view in views} == {True, False}
    assert min(view.brightness for view in views) < 0.7 < 1.3 < max(view.brightness for view in views)
    for view, found in zip(views, Views.of(views).images(), strict=True):
        expected = ImageEnhance.Brightness(Image.fromarray(view.pixels)).enhance(view.brightness)
        if view.mirrored:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert torch.equal(found, normalise(expected))
        float32 = (np.array(expected) / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        np.testing.assert_allclose(found.permute(1, 2, 0), float32, atol=1e-6)
