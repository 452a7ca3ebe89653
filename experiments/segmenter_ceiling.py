"""What the segmentation network could learn if the masks were true: the ceiling beside which its figure on `val` should be read.

    python experiments/segmenter_ceiling.py configs/voc-animals.toml --classifier runs/voc-animals/train/model.safetensors

The stage `segment` as it is, on the data set's own masks of `data.seed_split` in the pseudo-masks' place, then the stage `val`.
Never a result of the method.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np

from mupvss.config.load import load_config
from mupvss.data.masks import write_grey_png, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.options import VocData
from mupvss.runtime.device import prepare
from mupvss.runtime.log import each
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Metrics, Run, Work, run_stage
from mupvss.stages.segment import SEGMENT, fit


def write_true_masks(dataset: Dataset, folder: Path) -> None:
    """In the layout of the stage `masks`; the data set's void pixels stay 255."""
    for sample in each("true masks", dataset.samples):
        path = folder / "labels" / f"{sample.name}.png"
        if sample.open_mask is not None and not path.is_file():
            labels = sample.open_mask()
            write_palette_png(path, labels)
            write_grey_png(folder / "confidence" / path.name, np.full(labels.shape, 255, np.uint8))


def taught(run: Run, dataset: Dataset) -> Metrics:
    """The stage `segment` on the true masks of the data set, then the figures of `val`."""

    def work(given: Work) -> Metrics:
        write_true_masks(dataset, given.folder / "true")
        background = run.config.data.background == "some"
        return fit(given, given.inputs, dataset, given.folder / "true", given.folder, given.identity, background=background)

    prepare(run.config.seed, run.config.threads)
    run_stage(dataclasses.replace(SEGMENT, work=work, after=("train",), revision=-1), run)
    return run_one(run, "val")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--classifier", type=Path, required=True, help="whose backbone the network starts from, as in a run")
    parser.add_argument("--image-steps", type=int, help="of the segmentation network; the config's own unless given")
    parser.add_argument("--out", type=Path, default=Path("runs/ceilings/segmenter"))
    given = parser.parse_args()
    config = load_config(given.config, given.base)
    train = config.segment.train.model_copy(update={"image_steps": given.image_steps or config.segment.train.image_steps})
    segment = config.segment.model_copy(update={"train": train})
    data = config.data
    if isinstance(data, VocData):
        data = data.model_copy(update={"score_split": data.seed_split})  # every picture's mask, not only those scored
    config = config.model_copy(update={"segment": segment, "data": data})
    run = Run(config, given.out)
    dataset = load_dataset(config.data, "seeds", config.limit)
    dataset = Dataset(dataset.classes, [sample for sample in dataset.samples if sample.open_mask is not None])
    (given.out / "train").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(given.classifier, given.out / "train" / "model.safetensors")

    found = taught(run, dataset)
    figures = f"single scale {found['miou_single']:.1f}, with everything {found['miou']:.1f}"
    print(f"{len(dataset.samples)} true masks, mIoU on val: {figures}")


if __name__ == "__main__":
    main()
