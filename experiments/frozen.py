"""Does it need all this? A linear head, and nearest neighbours, on patches of a pretrained ViT that is not trained at all.

    python experiments/frozen.py RUN [RUN ...] [--every 3] [--threads 1] [--json FILE]

For the pictures and weights of each run: the ViT passes once over every picture and its mirror at the size of the training. The
head learns the tags from these patches, pooled like the classifier's; the neighbours of a patch are those of other pictures. Both
are refined by the same affinities, scales and pixels as every map; scored with the threshold chosen without masks and the best
one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from trials import score_ways

from mupvss.data.preprocess import resize_for_search, working_scale
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.losses import classification
from mupvss.methods import find_method
from mupvss.model.features import Features
from mupvss.ops import gwrp, rescaled_decay
from mupvss.options import SearchConfig
from mupvss.predict.run import FinishedRun
from mupvss.runtime.device import prepare
from mupvss.runtime.log import each
from mupvss.search import maps as m
from mupvss.search.multiscale import along_edges, canvas_size, cell_size, stretch, to_canvas, upright, views_of
from mupvss.search.seeds import Seeds, seed_path, write_seeds

STEPS, RATE, DECAY = 400, 5e-3, 1e-4
"""Of the head's training, on all pictures at once."""
BANK, NEAREST = 40, 50
"""Patches of each picture that may be neighbours, and number of neighbours of a patch."""
WAYS = ("linear head", "nearest neighbours", "both")


class Learned(NamedTuple):
    weight: Tensor
    """Of the head, (C, D)."""
    bias: Tensor
    bank: Tensor
    """Patches of unit length, (P, D)."""
    owner: Tensor
    """(P,) place of their picture."""
    tags: Tensor
    """(pictures, C) of 0 and 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=3, help="every n-th picture is searched and scored")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="the figures are added to this file, one JSON object per run")
    given = parser.parse_args()
    for run in given.runs:
        config = FinishedRun(run).config("train")
        prepare(config.seed, given.threads)
        dataset = load_dataset(config.data, "seeds", config.limit)
        method = find_method("vit-cam")
        network = method.build(config.model, method.options(), len(dataset.classes), True).eval()
        search, begin = SearchConfig(size=432, threshold="middle"), time.monotonic()
        learned = learn(network, dataset, search, config.model.image_size, config.model.patch_size)
        seconds, chosen = time.monotonic() - begin, Dataset(dataset.classes, dataset.samples[:: given.every])
        print(f"{run.name}: learned in {seconds:.0f} s", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for number, sample in enumerate(each(run.name, chosen.samples)):
                made = search_one(network, sample, dataset, number * given.every, learned, search, config.model.patch_size)
                for name, seeds in made.items():
                    write_seeds(seed_path(Path(folder), name, sample.name), seeds)
            found = score_ways(run, chosen, Path(folder), WAYS, config.data.background == "some")
        if given.json is not None:
            with given.json.open("a") as stream:
                stream.write(json.dumps({"run": run.name, "seconds": seconds, **found}) + "\n")


def learn(network: torch.nn.Module, dataset: Dataset, search: SearchConfig, size: int, patch_size: int) -> Learned:
    rng = np.random.default_rng(0)
    patches, owner, bank = [], [], []
    for number, sample in enumerate(each("patches", dataset.samples)):
        image = sample.open_image()
        resized = resize_for_search(image, size / (image.width * image.height) ** 0.5, patch_size)
        with torch.no_grad():
            own = views_of(network, resized, search, need_attention=False).patches.float()
        patches.append(own)
        rows = torch.from_numpy(rng.choice(own.shape[1], min(BANK, own.shape[1]), replace=False))
        bank.append(F.normalize(own[0, rows], dim=-1))
        owner.append(torch.full((len(rows),), number))
    tags = torch.from_numpy(np.stack([dataset.tag_vector(sample) for sample in dataset.samples]))
    weight = torch.zeros(len(dataset.classes), patches[0].shape[-1], requires_grad=True)
    bias = torch.full((len(dataset.classes),), -2.0, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        scores = []
        for own in patches:
            logits = own @ weight.T + bias  # (2, N, C)
            scores.append(gwrp(logits.transpose(1, 2), rescaled_decay(0.995, 784, own.shape[1])).mean(0))
        loss = classification(torch.stack(scores), tags)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss of the head on the tags: {float(loss):.3f}", flush=True)
    return Learned(weight.detach(), bias.detach(), torch.cat(bank), torch.cat(owner), tags)


@torch.no_grad()
def search_one(
    network: torch.nn.Module,
    sample: Sample,
    dataset: Dataset,
    number: int,
    learned: Learned,
    search: SearchConfig,
    patch_size: int,
) -> dict[str, Seeds]:
    """number: the picture's place in the data set; its own patches are no neighbours."""
    image = sample.open_image()
    classes = dataset.tagged(sample)
    cell = cell_size(image.size, search)
    size = canvas_size(*image.size, cell)
    sums = {name: torch.zeros(len(classes), *size) for name in WAYS[:2]}
    for scale in search.scales if classes else ():
        resized = resize_for_search(image, working_scale(image.size, search.size) * scale, patch_size)
        features: Features = views_of(network, resized, search, need_attention=True)
        for name, maps in (
            ("linear head", (features.patches.float() @ learned.weight.T + learned.bias)[..., classes].transpose(1, 2).relu()),
            ("nearest neighbours", neighbours(features.patches, learned, number, classes)),
        ):
            sums[name] += to_canvas(upright(m._refined(maps, features, search), features.grid), size)
    drawn = along_edges({name: stretch(total) for name, total in sums.items()}, list(sums) if classes else [], image, search)
    drawn["both"] = (drawn["linear head"] * drawn["nearest neighbours"]).sqrt()
    ids = np.array(classes, np.int16) + 1
    return {name: Seeds(ids, maps.numpy(), (image.height, image.width), cell) for name, maps in drawn.items()}


def neighbours(patches: Tensor, learned: Learned, number: int, classes: list[int]) -> Tensor:
    """(B, N, D) -> (B, C, N): how much more often the nearest patches of other pictures come from pictures with the tag than
    pictures have it, at least 0."""
    near = F.normalize(patches.float(), dim=-1) @ learned.bank.T
    near[..., learned.owner == number] = -1
    owners = learned.owner[near.topk(NEAREST, dim=-1).indices]  # (B, N, NEAREST)
    share = learned.tags[owners].mean(2)[..., classes]
    return (share - learned.tags.mean(0)[classes]).relu().transpose(1, 2)


if __name__ == "__main__":
    main()
