"""Tuning the segmentation network without `val`.

It learns from the pseudo-masks of pictures without true masks, and is tried, without tags, on those that have one.

    python experiments/segmenter_heldout.py runs/voc-animals [--every 2] [--set size=0 train.image_steps=6400 ...]

Needs a run finished up to its pseudo-masks, with `data.score_split` a part of `data.seed_split`; --set overrides its [segment].
Printed: mIoU at one scale, with scales and mirror, with the dense CRF too, each also without the image-level head's word;
and what the tags, were they given, would add.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from trials import claim

from mupvss.config.load import load_config
from mupvss.config.run import RunConfig
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.files import write_json
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.device import prepare
from mupvss.runtime.log import each
from mupvss.stages.run_folder import Run, Work, dataset_identity, fingerprint, stage_fingerprint
from mupvss.stages.segment import fit, segment_inputs
from mupvss.training.loop import remove_states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=2, help="every n-th held-out picture is scored")
    parser.add_argument("--out", type=Path, default=Path("runs/heldout"))
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="of [segment]: size=0, train.lr=1e-4")
    given = parser.parse_args()
    config = changed(load_config(given.run / "masks" / "config.toml"), given.set)
    dataset = load_dataset(config.data, "seeds", config.limit)
    learned = Dataset(dataset.classes, [s for s in dataset.samples if s.open_mask is None])
    scored = Dataset(dataset.classes, [s for s in dataset.samples if s.open_mask is not None][:: given.every])
    prepare(config.seed, config.threads)
    inputs = segment_inputs(config)
    identity = fingerprint("held out", inputs, stage_fingerprint(given.run / "masks"), dataset_identity(learned))
    claim(given.out, identity)
    if not (given.out / "model.safetensors").is_file():
        work = Work(inputs, learned, given.out, Run(config, given.run), identity)
        fit(work, inputs, learned, given.run / "masks", given.out, identity)
        remove_states(given.out)
    found = score(given.out / "model.safetensors", scored)
    print(f"{len(learned.samples)} pseudo-masks learned from, {len(scored.samples)} pictures scored")
    for name, value in found.items():
        print(f"{name:40s} {value:.1f}")
    write_json(given.out / "heldout.json", found)


def changed(config: RunConfig, options: list[str]) -> RunConfig:
    values = config.segment.model_dump(mode="json")
    for option in options:
        path, _, text = option.partition("=")
        *parents, name = path.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        try:
            section[name] = json.loads(text)
        except ValueError:
            section[name] = text
    return config.model_copy(update={"segment": type(config.segment).model_validate(values, strict=False)})


def score(checkpoint: Path, dataset: Dataset) -> dict[str, float]:
    """mIoU per way of asking."""
    ways = {
        "one scale": SegmentationPredictor.open(checkpoint, scales=(1.0,), crf="none", flip=False),
        "scales, mirror": SegmentationPredictor.open(checkpoint, crf="none"),
        "scales, mirror, CRF": SegmentationPredictor.open(checkpoint),
    }
    size = len(dataset.classes) + 1
    silent = [False, True] if getattr(ways["one scale"].network, "presence", None) is not None else [False]
    matrices = {(way, off): np.zeros((size, size), np.int64) for way in ways for off in silent}
    told = np.zeros((size, size), np.int64)
    for sample in each("scores", dataset.samples):
        assert sample.open_mask is not None
        image, truth = sample.open_image(), sample.open_mask()
        for (way, off), matrix in matrices.items():
            with without_presence(ways[way].network, off):
                matrix += confusion_matrix(ways[way](image).labels, truth, size)
        told += confusion_matrix(ways["scales, mirror, CRF"](image, sorted(sample.tags)).labels, truth, size)
    found = {way + (", presence ignored" if off else ""): scores(matrix).miou for (way, off), matrix in matrices.items()}
    return found | {"scales, mirror, CRF, tags given": scores(told).miou}


@contextlib.contextmanager
def without_presence(network: nn.Module, off: bool) -> Iterator[None]:
    if not off:
        yield
        return
    head = network.presence
    network.presence = None
    try:
        with torch.no_grad():
            yield
    finally:
        network.presence = head


if __name__ == "__main__":
    main()
