"""What an encoder could find if it were shown the masks: the ceiling beside which its seeds should be read.

    python experiments/ceilings.py configs/methods/vit-cam.toml --base configs/comparisons/voc-animals.toml

The classifier's network with a 3x3 convolution for a head, trained on the true masks of one half of the `train` pictures and
scored on the other half, and the other way round; tagged classes only, as seeds are. Never a result of the method.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.config.load import load_config
from mupvss.config.run import RunConfig
from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.methods import find_method
from mupvss.model.checkpoint import save_tensors
from mupvss.runtime.device import autocast, pick_device, prepare
from mupvss.segmentation.losses import segmentation_loss
from mupvss.stages.run_folder import Run, fingerprint
from mupvss.stages.train import train_inputs
from mupvss.training.batches import DenseSample, DenseViews, dense_batches
from mupvss.training.loop import Loop, grouped_optimizer, remove_states


class Probe(nn.Module):
    def __init__(self, config: RunConfig, classes: int) -> None:
        super().__init__()
        self.backbone = find_method(config.method).build(config.model, config.options, classes, True)
        width = self.backbone.backbone.width
        self.head = nn.Conv2d(width, classes + 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) -> logits (B, C + 1, h, w)."""
        found = self.backbone(images)
        return self.head(found.patches.transpose(1, 2).unflatten(2, found.grid))


def train_on(config: RunConfig, dataset: Dataset, folder: Path) -> Probe:
    prepare(config.seed, config.threads)
    manner = Run(config, folder).manner
    network = Probe(config, len(dataset.classes)).to(manner.device).train()
    samples = [DenseSample(s.origin, s.open_image, s.open_mask) for s in dataset.samples if s.open_mask]
    train = config.train
    views = DenseViews(samples, config.model.image_size, (0.6, 1.4), train.flip, config.seed)
    scale, decay = train.new_lr_scale, train.weight_decay
    optimizer = grouped_optimizer(network, train.lr, scale, decay, lambda name: not name.startswith("backbone.backbone."))
    identity = fingerprint("ceiling", train_inputs(config), [sample.origin for sample in samples])

    def save(path: Path) -> None:
        save_tensors(path, network.state_dict(), {})

    with Loop(network, optimizer, train, manner, folder, folder.name, identity, save, train.clip_norm) as loop:
        for batch in loop.over(dense_batches(views, train.batch_size, loop.first, loop.steps, manner)):
            tensors = batch.on(manner.device)
            with autocast(manner.device, train.precision):
                logits = network(tensors.images)
            loop.learn(segmentation_loss(logits, tensors.labels, tensors.weights), {}, batch.origins)
    remove_states(folder)
    return network.eval()


@torch.no_grad()
def score_on(network: Probe, config: RunConfig, dataset: Dataset) -> np.ndarray:
    device, size = pick_device(config.device), len(dataset.classes) + 1
    matrix = np.zeros((size, size), np.int64)
    for sample in dataset.samples:
        if sample.open_mask is None:
            continue
        image = sample.open_image()
        tensor = normalise(resize_for_search(image, 1.0, config.model.patch_size)).unsqueeze(0).to(device)
        with autocast(device, config.search.precision):
            logits = network(torch.cat((tensor, tensor.flip(-1)))).float()
        large = F.interpolate(logits, size=(image.height, image.width), mode="bilinear", align_corners=False).softmax(1)
        merged = large[0] + large[1].flip(-1)
        allowed = [0, *(i for i, name in enumerate(dataset.classes, 1) if name in sample.tags)]
        labels = np.array(allowed, np.uint8)[merged[allowed].argmax(0).cpu().numpy()]
        matrix += confusion_matrix(labels, sample.open_mask(), size)
    return matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--image-steps", type=int, default=6400)
    parser.add_argument("--out", type=Path, default=Path("runs/ceilings"))
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.base)
    config = config.model_copy(update={"train": config.train.model_copy(update={"image_steps": arguments.image_steps})})
    dataset = load_dataset(config.data, "seeds", config.limit)
    halves = [dataclasses.replace(dataset, samples=dataset.samples[k::2]) for k in (0, 1)]
    matrix = sum(
        score_on(train_on(config, halves[k], arguments.out / f"{arguments.config.stem}-{k}"), config, halves[1 - k])
        for k in (0, 1)
    )
    found = scores(np.asarray(matrix))
    print(f"{arguments.config.stem}: {len(dataset.samples)} pictures, trained on masks of the other half, mIoU {found.miou:.1f}")


if __name__ == "__main__":
    main()
