"""What tests share: one tiny run, and faults planted at what libraries offer, so that they do not depend on which file of ours
does what."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mupvss.config.load import build
from mupvss.config.run import RunConfig
from mupvss.data.tags import write_tags
from mupvss.methods import find_method
from mupvss.methods.checkpoint import ModelInfo
from mupvss.options import ViTConfig
from mupvss.runtime.device import has_bf16, own_cores


def _core_of_its_own() -> None:
    """Keeps each of pytest-xdist's workers, and the commands that it starts, to one core: then none disturbs another."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


_core_of_its_own()
TINY: dict[str, Any] = {
    "threads": own_cores(),
    "workers": 0,
    "checkpoint_every": 2,
    "baseline": True,
    "data.scenes.size": 32,
    "data.scenes.train": 24,
    "data.scenes.seeds": 6,
    "model.backbone": "micro",
    "model.patch_size": 8,
    "model.image_size": 32,
    "mupvss.pem.blocks": "all",
    "train.image_steps": 48,
    "train.batch_size": 8,
    "train.warmup_steps": 1,
    "search.scales": [1.0, 2.0],
    "search.precision": "fp32",
    "affinity.kind": "head",
    "affinity.crop": 32,
    "affinity.train.image_steps": 16,
    "affinity.train.batch_size": 8,
    "affinity.train.warmup_steps": 1,
    "segment.size": 0,
    "segment.crop": 32,
    "segment.scales": [1.0],
    "segment.train.image_steps": 16,
    "segment.train.batch_size": 8,
    "segment.train.warmup_steps": 1,
}
"""A whole run in seconds."""
PAPER: dict[str, Any] = {
    **{key: value for key, value in TINY.items() if not key.startswith(("data.", "affinity.kind", "model.patch_size"))},
    "model.backbone": "tiny",
    "model.weights": "",
    "train.image_steps": 16,
    "train.batch_size": 4,
    "search.scales": [1.0],
    "affinity.channels": 0.03125,
    "affinity.train.image_steps": 8,
    "affinity.train.batch_size": 4,
    "segment.channels": 0.03125,
    "segment.train.image_steps": 8,
    "segment.train.batch_size": 4,
    "limit": 8,
    "baseline": False,
}
"""Every stage of the paper's configs in seconds, on eight pictures."""
TINY_VIT = ViTConfig(backbone="micro", patch_size=8, image_size=32)
"""The real architecture, small enough for tests: 32 pixels, patches of 8."""
TIMES = ("seconds", "peak_mb", "images_per_s")


def tiny(changes: Mapping[str, Any] | None = None, of: Mapping[str, Any] = TINY) -> RunConfig:
    """The tiny run with some options changed, as in {"train.image_steps": 240}; None takes one out."""
    return build(as_tables({**of, **(changes or {})}))


def as_tables(options: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.lr": 1} -> {"train": {"lr": 1}}; what belongs to the drawn scenes is left out where other pictures are meant."""
    nested: dict[str, Any] = {}
    for key, value in options.items():
        if value is None or (key.startswith("data.scenes.") and options.get("data.source", "scenes") != "scenes"):
            continue
        if key.startswith("affinity.") and key != "affinity.kind" and options.get("affinity.kind") == "none":
            continue
        *parents, name = key.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return nested


def network_of(method: str = "mupvss", classes: int = 3, model: Any = None, **options: Any) -> Any:
    """The network of a method, on a tiny ViT or on what `model` says, with some of the method's own options."""
    found = find_method(method)
    return found.build(model or TINY_VIT, found.options(**options), classes, True)


def knowing(network: Any, centres: int = 2) -> Any:
    """A network of `network_of`, with centres as if they had been gathered."""
    if hasattr(network, "remember"):
        found = torch.nn.functional.normalize(torch.randn(len(network.p2p_bias), 3 * centres, network.backbone.width), dim=-1)
        network.remember(found[:, :centres], found[:, centres:])
    return network


def info_of(classes: tuple[str, ...], method: str = "mupvss", model: Any = None, **options: Any) -> ModelInfo:
    """What its checkpoint says of it."""
    found = find_method(method)
    return ModelInfo(classes, found, model or TINY_VIT, found.options(**options), method)


def words(options: Mapping[str, Any]) -> list[str]:
    """The same options as one types them: --train.image-steps 240."""
    return list(_words(options))


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            *parents, last = name.split(".")
            yield f"--{'.'.join([*parents, last if value else f'no-{last}'])}"
        else:
            yield f"--{name}"
            yield from map(str, value if isinstance(value, (list, tuple)) else [value])


def at_step(monkeypatch: Any, action: Callable[[int], None]) -> list[int]:
    """Calls `action` with the number of each optimiser step, from 1, just before the step is made; -> the steps begun."""
    real, made = torch.optim.AdamW.step, []

    def step(self: Any, *arguments: Any, **options: Any) -> Any:
        made.append(len(made) + 1)
        action(made[-1])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return made


def pretend_bf16(monkeypatch: Any, units: bool) -> None:
    """A processor with units for bfloat16, or without, whatever this one is."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    has_bf16.cache_clear()


def at_write(monkeypatch: Any, action: Callable[[str, int], None]) -> None:
    """Calls `action` with the name of each file that is about to get its final name, and how many there were, from 1. Linux
    only."""
    real, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        action(Path(f"/proc/self/fd/{descriptor}").readlink().name, count)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def whole(out: Path) -> dict[str, Any]:
    """Every file of a run but the report, without what differs from run to run."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file() and "report" not in p.parts):
        name = path.relative_to(out).as_posix()
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [{k: v for k, v in json.loads(line).items() if not k.endswith(TIMES)} for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def red_and_blue(root: Path, name: str, height: int, width: int) -> None:
    """Six pictures of a red or a blue block on dark noise in root/pictures, and their tags in root/tags.csv. name: with {} for
    the number."""
    rng = np.random.default_rng(0)
    tags = {}
    (root / "pictures").mkdir()
    for i in range(6):
        pixels = rng.integers(0, 60, (height, width, 3))
        pixels[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4, 0 if i % 2 else 2] += 180
        Image.fromarray(pixels.astype(np.uint8)).save(root / "pictures" / name.format(i))
        tags[name.format(i)] = {"red" if i % 2 else "blue"}
    write_tags(root / "tags.csv", tags)
