"""Three training steps in float64, in as many processes as torchrun starts; the first writes losses and gradients to a file."""

from __future__ import annotations

import sys

import numpy as np
import torch

from mupvss.config.schema import DataConfig, LossConfig, ModelConfig, PEMConfig, ScenesConfig, TrainConfig
from mupvss.data.sources import load_dataset
from mupvss.model.build import build_model
from mupvss.runtime.device import prepare
from mupvss.runtime.processes import processes
from mupvss.training.batches import batches
from mupvss.training.classifier import Training, batch_loss, prepared

METHODS = {
    "mupvss": (
        {"method": "mupvss", "drop_path": 0.4, "pem": PEMConfig(blocks="all")},
        {"p2p_dense": 0.5, "p2p_dense_start": 0.0, "ramp": 0.0, "p2p_cross": 0.5},
    ),
    "tagged": ({"method": "mupvss"}, {"tagged_only": True, "cip": 1.0, "ramp": 0.0, "reduction": "sum"}),
    "literal": ({"method": "mupvss", "pem": PEMConfig(gate="open", logits="dot")}, {"cip_form": "literal", "p2p_affine": False}),
    "no-losses": ({"method": "mupvss"}, {"ccp": 0.0, "cip": 0.0, "p2p": 0.0}),
    "mctformer": ({"method": "mctformer", "drop_path": 0.4}, {"token_contrast": 0.3}),
    "cam": ({"method": "cam", "drop_path": 0.4}, {}),
}


def main(method: str, target: str) -> None:
    model_options, loss_options = METHODS[method]
    prepare(0, 1)
    dataset = load_dataset(DataConfig(scenes=ScenesConfig(size=32, train=24, seeds=4)), "train")
    model = ModelConfig(backbone="tiny", patch_size=16, image_size=32, **model_options)
    train = TrainConfig(batch_size=8, workers=0, precision="fp32", image_steps=24)
    training = Training(dataset, model, LossConfig(**loss_options), train, 0, torch.device("cpu"))
    torch.manual_seed(0)
    network = build_model(model, len(dataset.classes)).double().train()
    for module in network.modules():
        if hasattr(module, "gate") and isinstance(module.gate, torch.nn.Parameter):
            module.gate.data.fill_(0.1)  # open, so that gradients flow through it
    called = prepared(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    found = {}
    for step, batch in enumerate(batches(dataset, train, 32, 0, 0, 3)):
        images, tags = (x.double() for x in batch.on(training.device))
        loss, further = batch_loss(network, called, images, tags, training, step / 3)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures = processes().mean({"loss": loss.item(), **{name: value.item() for name, value in further.items()}})
        found |= {f"{step}/{name}": np.float64(value) for name, value in figures.items()}
        for name, parameter in network.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            found[f"{step}/grad/{name}"] = grad.numpy().copy()
        optimizer.step()
    if processes().main:
        np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
