"""Tiny data sets in the real layouts, and the folder of shared measuring data, which some tests need."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY_VIT, tiny
from PIL import Image

from mupvss.config.run import RunConfig
from mupvss.data.masks import write_palette_png
from mupvss.options import ViTConfig
from mupvss.runtime.device import has_bf16, own_cores

SHARED = Path(os.environ.get("MUPVSS_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _numeric_modes():
    """Those of a fresh process, whatever an earlier test's command has set."""
    torch.set_num_threads(own_cores())
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(autouse=True)
def _no_other_processor():
    """A test may pretend one (`helpers.pretend_bf16`)."""
    yield
    has_bf16.cache_clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "voc-animals").is_dir():
        pytest.skip(f"needs the shared measuring data at {SHARED}, which is absent")
    return SHARED


@pytest.fixture
def tiny_model() -> ViTConfig:
    return TINY_VIT


@pytest.fixture
def tiny_run() -> RunConfig:
    """A whole run in seconds."""
    return tiny()


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Three pictures in VOC's layout: a dog with a person, a cat, a chair; the cat's mask has void pixels."""
    root = tmp_path / "VOC2012"
    rng = np.random.default_rng(0)
    listing = {"a": (["dog", "person"], (12, 15)), "b": (["cat"], (8, 255)), "c": (["chair"], (9,))}
    for name, (objects, ids) in listing.items():
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 56, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((40, 56), np.uint8)
        for k, class_id in enumerate(ids):
            mask[5:20, 5 + 20 * k : 20 + 20 * k] = class_id
        write_palette_png(root / "SegmentationClass" / f"{name}.png", mask)
        (root / "Annotations").mkdir(exist_ok=True)
        body = "".join(f"<object><name>{o}</name><difficult>{i}</difficult></object>" for i, o in enumerate(objects))
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{body}</annotation>")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\nc\n")
    return root


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Two cats, a dog and a picture of nothing, one folder per tag."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(1)
    for name in ("cat/1.jpg", "cat/2.png", "dog/3.jpg", "none/4.jpg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 40, 3), np.uint8)).save(path)
    return root
