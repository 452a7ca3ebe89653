"""What the drawn scenes are worth: three yardsticks that say whether a good score on them means anything.

A small supervised network must do well (the pictures hold what is needed), a classifier that sees one pixel's colour and a
centred box must not (nothing is given away). Run: python experiments/scenes_worth.py [--seed 1] [--images 44800]
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.data.scenes.render import SIX, draw_scene
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.runtime.device import autocast

CLASSES = tuple(SIX)
K = len(CLASSES) + 1
TEST_FIRST = 10_000_000


def pictures(seed: int, first: int, count: int, size: int) -> tuple[Tensor, Tensor]:
    """(count, 3, S, S) float in [-1, 1] and class ids (count, S, S)."""
    scenes = [draw_scene(seed, first + i, size) for i in range(count)]
    images = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2)
    return images.float() / 127.5 - 1, torch.from_numpy(np.stack([s.mask for s in scenes])).long()


def mean_iou(prediction: Tensor, truth: Tensor) -> float:
    return scores(confusion_matrix(prediction.numpy(), truth.numpy(), K)).miou


class SmallUNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width, 6 * width]
        self.down = nn.ModuleList(_block(a, b) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList(_block(b + a, a) for a, b in itertools.pairwise(sizes[1:]))
        self.head = nn.Conv2d(width, K, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for i in reversed(range(len(self.up))):
            wide = F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.up[i](torch.cat((wide, kept[i]), 1))
        return self.head(x)


def _block(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()
    )


def supervised(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], images_seen: int) -> float:
    torch.manual_seed(0)
    network = SmallUNet().to(memory_format=torch.channels_last)
    steps = images_seen // 32
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        pick = torch.randint(len(train[0]), (32,), generator=generator)
        x, y = train[0][pick], train[1][pick]
        if step % 2:
            x, y = x.flip(-1), y.flip(-1)
        with autocast(torch.device("cpu"), "bf16"):
            logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  step {step}/{steps} loss {loss.item():.3f}", flush=True)
    network.eval()
    with torch.no_grad():
        prediction = torch.cat([network(part).argmax(1) for part in test[0].split(50)])
    return mean_iou(prediction, test[1])


def colour_only(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Most frequent class, weighted against the background, of each of 16^3 colours: the best of several weights."""

    def bins(x: Tensor) -> Tensor:
        q = ((x + 1) * 7.999).long().clamp(0, 15)
        return q[:, 0] * 256 + q[:, 1] * 16 + q[:, 2]

    counts = torch.zeros(4096, K).index_put_((bins(train[0]).flatten(), train[1].flatten()), torch.tensor(1.0), accumulate=True)
    best = 0.0
    for weight in (1.0, 2.0, 4.0, 8.0, 16.0):
        scaled = counts * torch.tensor([1.0] + [weight] * (K - 1))
        best = max(best, mean_iou(scaled.argmax(1)[bins(test[0])], test[1]))
    return best


def centred_box(test: tuple[Tensor, Tensor]) -> float:
    """The tagged class (the first, if several) in a centred box: the best of several sizes."""
    truth, size = test[1], test[1].shape[-1]
    best = 0.0
    for share in np.arange(0.1, 1.01, 0.1):
        prediction = torch.zeros_like(truth)
        a, b = round(size * (1 - share) / 2), round(size * (1 + share) / 2)
        for i, mask in enumerate(truth):
            tags = mask.unique()
            prediction[i, a:b, a:b] = tags[tags > 0][0] if (tags > 0).any() else 0
        best = max(best, mean_iou(prediction, truth))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=44_800, help="image steps of the supervised network")
    parser.add_argument("--pictures", type=int, default=4000, help="different training pictures")
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    begin = time.monotonic()
    train = pictures(options.seed, 0, options.pictures, options.size)
    test = pictures(options.seed, TEST_FIRST, 400, options.size)
    print(f"drew {options.pictures + 400} pictures in {time.monotonic() - begin:.0f} s")
    print(f"centred box {centred_box(test):.1f} mIoU (bar: at most 25)")
    print(f"colour only {colour_only(train, test):.1f} mIoU (bar: at most 30)")
    print(f"supervised  {supervised(train, test, options.images):.1f} mIoU (bar: at least 85)")


if __name__ == "__main__":
    main()
