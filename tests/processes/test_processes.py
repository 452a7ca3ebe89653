"""Two processes give what one gives: gradients step by step, seeds and masks byte by byte, figures digit by digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny

from mupvss.config.load import save_config
from mupvss.methods import find_method

pytestmark = pytest.mark.slow

pytest.importorskip("accelerate")
STEPS = Path(__file__).with_name("steps.py")


def run(*arguments, processes=1, check=True):
    """A program of ours in one process, or in several that torchrun starts."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *map(str, arguments)]
    found = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert not check or found.returncode == 0, found.stderr[-3000:]
    return found


@pytest.mark.parametrize("method", ["mupvss", "summed", "literal", "no-losses", "mctformer", "vit-cam"])
def test_two_processes_step_as_one_does(tmp_path, method):
    """float64: losses, figures and every gradient of three steps, the network having moved in between."""
    run(STEPS, method, tmp_path / "one.npz")
    run(STEPS, method, tmp_path / "two.npz", processes=2)
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert one.files == two.files
        assert len(one.files) > 300
        for name in one.files:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-9, atol=1e-10, err_msg=name)
        assert all(np.abs(one[f"2/grad/{name}"]).max() > 0 for name in ("backbone.patch_embed.proj.weight", "head.conv.weight"))


def files(folder, pattern):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern))}


def figures(folder):
    found = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in found.items() if not key.endswith(("seconds", "peak_mb", "images_per_s"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training in one folder each; every later stage in one process, and in two."""
    alone = {"threads": 1, "baseline": False, "device": "cpu", "data.scenes.seeds": 7}
    config = tiny({**alone, "model.backbone": "tiny", "train.precision": "fp32", "affinity.kind": "none"})
    base = tmp_path_factory.mktemp("processes")
    save_config(base / "c.toml", config)
    for stage, count in (("one", 1), ("two", 2)):
        run("-m", "mupvss", "train", base / "c.toml", "--out", base / stage, processes=count)
    return base


def test_training_in_two_processes(runs):
    """The command as it is given, float32: the same log and nearly the same network."""
    from mupvss.model.checkpoint import load_tensors

    logs = [json.loads((runs / name / "train" / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    for key in logs[0].keys() - {"images_per_s"}:
        assert logs[1][key] == pytest.approx(logs[0][key], rel=1e-3), key
    one, two = (load_tensors(runs / name / "train" / "model.safetensors")[0] for name in ("one", "two"))
    assert max((one[key] - two[key]).abs().max().item() for key in one) < 2e-4
    assert sorted(p.name for p in (runs / "two" / "train").iterdir()) == sorted(
        p.name for p in (runs / "one" / "train").iterdir()
    )


def test_stages_shared_by_two_processes(runs):
    """From one and the same classifier."""
    import shutil

    shutil.rmtree(runs / "two")
    (runs / "two").mkdir()
    shutil.copytree(runs / "one" / "train", runs / "two" / "train")
    for stage in ("seeds", "affinity", "masks"):
        for name, count in (("one", 1), ("two", 2)):
            run("-m", "mupvss", stage, runs / "c.toml", "--out", runs / name, processes=count)
    pictures, kinds = 7, len(find_method("mupvss").offered())
    assert len(files(runs / "one", "*.npz")) == pictures * kinds
    assert files(runs / "one", "*.npz") == files(runs / "two", "*.npz")
    assert len(files(runs / "one", "*.png")) >= 7 * 4
    assert files(runs / "one", "*.png") == files(runs / "two", "*.png")
    assert (runs / "one" / "seeds" / "kinds.json").read_text() == (runs / "two" / "seeds" / "kinds.json").read_text()
    assert figures(runs / "one") == figures(runs / "two")


def test_the_whole_job_in_two_processes(runs):
    """All stages in one command; what is done already is not done again, by any process."""
    found = run("-m", "mupvss", "run", runs / "c.toml", "--out", runs / "whole", processes=2)
    assert found.stderr.count("segment: done") == 1, "one process speaks"
    metrics = json.loads((runs / "whole" / "metrics.json").read_text())
    assert metrics["val/pictures"] == metrics["seeds/pictures"] == 7
    assert (runs / "whole" / "report" / "index.html").is_file()
    assert not list((runs / "whole").rglob(".*.part*"))
    again = run("-m", "mupvss", "run", runs / "c.toml", "--out", runs / "whole", processes=2)
    assert again.stderr.count("up to date") == 6  # of the affinity, which has nothing to do, nothing is said


def test_what_cannot_be_shared_is_refused(runs):
    odd = run(
        "-m", "mupvss", "train", runs / "c.toml", "--train.batch-size", "5", "--out", runs / "odd", processes=2, check=False
    )
    assert odd.returncode != 0
    assert "batch_size is 5, which 2 processes cannot share equally" in odd.stderr
    alone = run("-m", "mupvss", "data", "check", processes=2, check=False)
    assert alone.returncode != 0
    assert "mupvss data works in one process" in alone.stderr
