"""What should a segmentation network do with tags that are known? Four ways to draw masks, on a run with `crossfit`.

    python experiments/known_tags.py RUN [--every 4] [--threads 1]

Nothing is trained. Every n-th picture that has a true mask is drawn by the network of the run that has not learned it, with its
tags known: with the image-level head's word or without it, which is what certainty makes of it; and with the classes that are not
tagged left out before the softmax of every scale, or after all scales were averaged. mIoU without and with the dense CRF.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mupvss.data.preprocess import normalise, resize_for_search, working_scale
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.predict.run import FinishedRun
from mupvss.predict.segmenter import NEVER, SegmentationPredictor
from mupvss.runtime.device import autocast, prepare
from mupvss.runtime.log import each
from mupvss.stages.crossfit import parts_of

WAYS = [(word, early) for word in (True, False) for early in (False, True)]


@torch.no_grad()
def all_ways(predictor: SegmentationPredictor, image, tagged: list[int]) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    """Per way probabilities of the background and the tagged classes (K + 1, H, W), not refined."""
    size = (image.height, image.width)
    kept = torch.tensor([0, *tagged])
    totals = [torch.zeros(len(kept), *size) for _ in WAYS]
    base = working_scale(image.size, predictor.info.segment.size) if predictor.info.segment.size else 1.0
    for scale in predictor.scales:
        tensor = normalise(resize_for_search(image, base * scale, predictor.stride)).unsqueeze(0)
        with autocast(predictor.device, predictor.info.segment.train.precision):
            logits, presence = predictor.network(torch.cat((tensor, tensor.flip(-1))), True)
        logits = logits.float()
        if not predictor.info.background:
            logits[:, 0] = NEVER
        for (word, early), total in zip(WAYS, totals, strict=True):
            own = logits.clone()
            if not word and presence is not None:
                own[:, 1:] -= F.logsigmoid(presence.float())[:, :, None, None]
            if early:
                own = own[:, kept]
            found = F.interpolate(own, size=size, mode="bilinear", align_corners=False).softmax(1)
            found = found if early else found[:, kept]
            total += (found[0] + found[1].flip(-1)) / 2
    return [(total / len(predictor.scales)).numpy() for total in totals]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    config = FinishedRun(given.run).config("crossfit")
    prepare(config.seed, given.threads)
    dataset = load_dataset(config.data, "seeds", config.limit)
    parts = parts_of(dataset, config.crossfit.folds)
    networks = given.run / "crossfit" / "networks"
    predictors = {
        part: SegmentationPredictor.open(
            networks / str(part) / "model.safetensors", scales=config.segment.scales, crf=config.segment.crf
        )
        for part in set(parts)
    }
    size = len(dataset.classes) + 1
    matrices = {(way, crf): np.zeros((size, size), np.int64) for way in WAYS for crf in (False, True)}
    chosen = [(s, part) for s, part in zip(dataset.samples, parts, strict=True) if s.open_mask is not None][:: given.every]
    for sample, part in each("known tags", chosen):
        assert sample.open_mask is not None
        image, truth, predictor = sample.open_image(), sample.open_mask(), predictors[part]
        ids = [i for i, name in enumerate(dataset.classes, 1) if name in sample.tags]
        first = 0 if predictor.info.background else 1
        labels = np.array([0, *ids], np.uint8)[first:]
        for way, found in zip(WAYS, all_ways(predictor, image, ids), strict=True):
            found = found[first:]
            for crf in (False, True):
                refined = predictor._refine(image, found) if crf and len(found) > 1 else found
                matrices[way, crf] += confusion_matrix(labels[refined.argmax(0)], truth, size)
    print(f"{given.run}: {len(chosen)} pictures, mIoU without and with the dense CRF")
    for word, early in WAYS:
        said = "the head's word counts" if word else "certainty in its place"
        when = "others left out before the softmax" if early else "others left out afterwards"
        plain, refined = (scores(matrices[(word, early), crf]).miou for crf in (False, True))
        print(f"{said:25s} {when:38s} {plain:5.1f} {refined:5.1f}")


if __name__ == "__main__":
    main()
