"""Stage `evaluate`: the masks written by `seeds`, scored as any folder of masks would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.data.masks import read_label_image
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.folders import as_json, as_table
from mupvss.runtime.log import console
from mupvss.runtime.processes import processes
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import read_mask

NAME = "evaluate"


def run_evaluate(run: Run) -> Metrics:
    """-> the table of DIR/seeds/masks against the data set's masks; nothing but a note where it has none."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    masks = run.folder("seeds") / "masks"
    depends_on = fingerprint(NAME, stage_fingerprint(run.folder("seeds")), dataset_identity(dataset))
    names = ["background", *dataset.classes]

    def work(folder: Path) -> Metrics:
        matrix = np.zeros((len(names), len(names)), np.int64)
        team, scored = processes(), 0
        for sample in team.share(dataset.samples):
            if sample.open_mask is not None:
                prediction = read_label_image(masks / f"{sample.name}.png")
                matrix += confusion_matrix(prediction, read_mask(sample, prediction.shape), len(names))
                scored += 1
        pictures = int(team.total(np.array(scored)))
        if not pictures:
            return {"pictures": 0}
        found = scores(team.total(matrix))
        console.print(as_table(found, names, f"seeds, threshold without masks, {pictures} pictures"))
        return {"pictures": pictures, **as_json(found)}

    return run_stage(run, NAME, depends_on, work, truth_identity(dataset, config.data))
