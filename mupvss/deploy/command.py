"""Exports a run's network and prints how well the runtimes that are installed agree with PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mupvss.data.images import read_image
from mupvss.deploy.agreement import compare_runtime
from mupvss.deploy.onnx_file import export_onnx
from mupvss.deploy.runtimes import Runtime
from mupvss.engine.device import prepare
from mupvss.predictor import load

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
TOLERANCE = 1e-3
"""Relative difference of the logits from which an export counts as failed."""


def export_and_check(run: Path, out: Path, classifier: bool, pictures: Sequence[Path]) -> int:
    """-> OUT; 1 if a runtime's answers differ by more than TOLERANCE."""
    predictor = load(run, "cpu", classifier=classifier)
    export_onnx(predictor, out)
    console = Console()
    console.print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)
    prepare(0, 0)
    shown = [read_image(path) for path in pictures] or [_noise()]
    found = [compare_runtime(predictor, out, runtime, shown) for runtime in RUNTIMES if importlib.util.find_spec(runtime)]
    table = Table("runtime", "largest difference", "same label", "times PyTorch's speed")
    for entry in found:
        table.add_row(entry.runtime, f"{entry.difference:.1e}", f"{100 * entry.same:.3f} %", f"{entry.speed:.2f}")
    console.print(table)
    return int(any(entry.difference > TOLERANCE for entry in found))


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
