"""What a network costs: parameters, and floating-point operations of one pass at the training's size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mupvss.engine.checkpoint import read_model
from mupvss.model.build import build_model


def network_cost(checkpoint: Path) -> dict[str, float]:
    """-> parameters, and gflops: of one picture forward, a multiplication and an addition counted as two."""
    _, info = read_model(checkpoint)
    network = build_model(info.model, len(info.classes), pretrained=False).eval()
    counter = FlopCounterMode(display=False)
    side = info.model.image_size
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, side, side))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "gflops": counter.get_total_flops() / 1e9,
    }
