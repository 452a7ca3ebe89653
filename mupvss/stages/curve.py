"""Stage `curve`: what the maps are worth along the training, from the networks kept by `train.snapshots`."""

from __future__ import annotations

from pathlib import Path

from mupvss.data.sample import Dataset, evenly
from mupvss.data.sources import load_dataset
from mupvss.predict.predictor import Predictor
from mupvss.stages.run_folder import Metrics, Run, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import score_maps, search_all
from mupvss.stages.seeds import seeds_fingerprint

NAME = "curve"


def run_curve(run: Run, pictures: int) -> Metrics:
    """-> DIR/curve/metrics.json: "points" as a list of image_steps and, per kind of map, miou and oracle; "asked", and "of": the
    fingerprint of the search whose networks these are, and what scored it.

    Scored on about `pictures` pictures, evenly picked. A snapshot is not a finished training: its learning rate is still
    high, so the points before the last are lower than a training of that length would be.
    """
    config = run.config
    whole, trained = load_dataset(config.data, "seeds", config.limit), run.folder("train")
    searched = seeds_fingerprint(config, stage_fingerprint(trained), whole)
    dataset = Dataset(whole.classes, evenly(whole.samples, pictures))
    truth = truth_identity(whole, config.data)
    depends_on = fingerprint(NAME, searched, pictures)
    steps = max(1, config.train.image_steps // config.train.batch_size) * config.train.batch_size
    networks = {int(path.stem): path for path in sorted((trained / "snapshots").glob("*.safetensors"))}
    networks[steps] = trained / "model.safetensors"

    def work(folder: Path) -> Metrics:
        points = [{"image_steps": n, **_score(run, path, dataset, folder / str(n))} for n, path in sorted(networks.items())]
        return {"pictures": len(dataset.samples), "asked": pictures, "of": [searched, truth], "points": points}

    return run_stage(run, NAME, depends_on, work, truth)


def _score(run: Run, checkpoint: Path, dataset: Dataset, folder: Path) -> Metrics:
    predictor = Predictor.open(checkpoint, run.config.search, None, run.config.device)
    kinds = sorted({*predictor.kinds, predictor.kind})
    search_all(predictor, dataset, kinds, folder)
    found = {kind: score_maps(dataset, folder, kind) for kind in kinds}
    return {
        kind: {"miou": entry.plain.miou, "oracle": entry.oracle.miou}
        for kind, entry in found.items()
        if entry.plain is not None and entry.oracle is not None
    }
