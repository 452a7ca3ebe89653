"""Three training steps in float64, in as many processes as torchrun starts; the first writes losses and gradients to a file."""

from __future__ import annotations

import sys

import numpy as np
import torch

from mupvss.data.sources import load_dataset
from mupvss.methods import find_method
from mupvss.options import PEMConfig, ScenesConfig, ScenesData, TrainConfig, ViTConfig
from mupvss.runtime.device import prepare
from mupvss.runtime.processes import processes
from mupvss.training.batches import Manner, batches
from mupvss.training.classifier import prepared, weighted_sum

METHODS = {
    "mupvss": (
        "mupvss",
        {"pem": PEMConfig(blocks="all"), "p2p_dense": 0.5, "ramp": 0.0, "p2p_cross": 0.5},
        {"drop_path": 0.4},
    ),
    "summed": ("mupvss", {"cip": 1.0, "ramp": 0.0, "reduction": "sum"}, {}),
    "literal": (
        "mupvss",
        {"pem": PEMConfig(blocks="all", gate="open", logits="dot"), "cip_form": "literal", "p2p_affine": False},
        {},
    ),
    "no-losses": ("mupvss", {"ccp": 0.0, "cip": 0.0, "p2p": 0.0}, {}),
    "mctformer": ("mctformer", {"token_contrast": 0.3}, {"drop_path": 0.4}),
    "vit-cam": ("vit-cam", {}, {"drop_path": 0.4}),
}


def main(which: str, target: str) -> None:
    name, own, of_model = METHODS[which]
    prepare(0, 1)
    method = find_method(name)
    options = method.options(**own)
    dataset = load_dataset(ScenesData(scenes=ScenesConfig(size=32, train=24, seeds=4)), "train")
    model = ViTConfig(backbone="tiny", patch_size=16, image_size=32, **of_model)
    train, manner = TrainConfig(batch_size=8, precision="fp32", image_steps=24), Manner(workers=0)
    torch.manual_seed(0)
    network = method.build(model, options, len(dataset.classes), True).double().train()
    for module in network.modules():
        if hasattr(module, "gate") and isinstance(module.gate, torch.nn.Parameter):
            module.gate.data.fill_(0.1)  # open, so that gradients flow through it
    called = prepared(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    found = {}
    for step, batch in enumerate(batches(dataset, train, 32, 0, 0, 3, manner)):
        images, tags = (x.double() for x in batch.on(manner.device))
        losses = method.losses(network, called(images), tags, options, (step + 1) / 3)
        loss = weighted_sum(losses)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures = processes().mean({"loss": loss.item(), **{name: value.item() for name, (_, value) in losses.items()}})
        found |= {f"{step}/{name}": np.float64(value) for name, value in figures.items()}
        for name, parameter in network.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            found[f"{step}/grad/{name}"] = grad.numpy().copy()
        optimizer.step()
    if processes().main:
        np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
