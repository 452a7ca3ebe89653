"""Stage `val`: the segmentation network on pictures it has not seen, without tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.config.schema import DataConfig
from mupvss.data.masks import write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.folders import as_json, as_table
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.runtime.log import console, each
from mupvss.runtime.processes import processes
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import read_mask

NAME = "val"


def run_val(run: Run) -> Metrics:
    """-> DIR/val/masks/NAME.png, for VOC in the layout its server takes, and the figures.

    single: one scale, no mirror, no CRF. The folder holds the masks with everything the config asks for.
    """
    config = run.config
    dataset = load_dataset(config.data, "val", config.limit)
    segmenter = run.folder("segment")
    depends_on = fingerprint(NAME, stage_fingerprint(segmenter), config.segment, config.data.val_split, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        checkpoint = segmenter / "model.safetensors"
        single = SegmentationPredictor.open(checkpoint, scales=(1.0,), crf="none", device=config.device, flip=False)
        full = SegmentationPredictor.open(checkpoint, device=config.device)
        return _score_all(dataset, single, full, folder / _masks_folder(config.data))

    return run_stage(run, NAME, depends_on, work, truth_identity(dataset, config.data))


def _masks_folder(data: DataConfig) -> str:
    return f"results/VOC2012/Segmentation/comp6_{data.val_split}_cls" if data.source == "voc" else "masks"


def _score_all(dataset: Dataset, single: SegmentationPredictor, full: SegmentationPredictor, masks: Path) -> Metrics:
    names = ["background", *dataset.classes]
    matrices = {"single": np.zeros((len(names),) * 2, np.int64), "full": np.zeros((len(names),) * 2, np.int64)}
    scored = 0
    for sample in each(NAME, dataset.samples):
        image = sample.open_image()
        labels = {"full": full(image).labels}
        write_palette_png(masks / f"{sample.name}.png", labels["full"])
        if sample.open_mask is not None:
            labels["single"] = single(image).labels
            truth = read_mask(sample, (image.height, image.width))
            for name, matrix in matrices.items():
                matrix += confusion_matrix(labels[name], truth, len(names))
            scored += 1
    team = processes()
    pictures = int(team.total(np.array(scored)))
    if not pictures:
        return {"pictures": 0}
    found = {name: scores(team.total(matrix)) for name, matrix in matrices.items()}
    console.print(as_table(found["full"], names, f"segmentation network, {pictures} pictures, no tags"))
    return {"pictures": pictures, "miou_single": found["single"].miou, **as_json(found["full"])}
