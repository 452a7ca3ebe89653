"""Stage `curve`: the scores of the maps in the course of the training, from the networks kept by `snapshots`."""

from __future__ import annotations

from pathlib import Path

from mupvss.config.run import RunConfig
from mupvss.data.sample import Dataset, evenly
from mupvss.options import Section
from mupvss.predict.predictor import Predictor
from mupvss.stages.run_folder import Metrics, Run, Stage, Work, known_by, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.seeds import SEEDS, SeedsInputs, scored, seeds_inputs


class CurveInputs(Section):
    seeds: SeedsInputs
    pictures: int
    image_steps: int
    """Image steps of the whole training, and so of its last network."""


def run_curve(run: Run, pictures: int) -> Metrics:
    """-> DIR/curve/metrics.json: "points", a list of image_steps and, per kind of map, miou and oracle; "asked", the number of
    pictures asked for; and "of", the fingerprint of the search with these networks and the identity of the masks that scored it.

    Scored on about `pictures` pictures, evenly picked. A snapshot is not a finished training: its learning rate is still high, so
    the points before the last are lower than a training of that length would be.
    """

    def inputs(config: RunConfig) -> CurveInputs:
        steps = max(1, config.train.image_steps // config.train.batch_size) * config.train.batch_size
        return CurveInputs.model_construct(seeds=seeds_inputs(config), pictures=pictures, image_steps=steps)

    return run_stage(Stage("curve", inputs, curve, after=("train",), scores=True), run)


def curve(work: Work) -> Metrics:
    inputs, whole = work.inputs, work.dataset
    dataset = Dataset(whole.classes, evenly(whole.samples, inputs.pictures))
    networks = {int(path.stem): path for path in sorted((work.run.folder("train") / "snapshots").glob("*.safetensors"))}
    networks[inputs.image_steps] = work.run.checkpoint("train")
    points = [{"image_steps": n, **_score(work, path, dataset, work.folder / str(n))} for n, path in sorted(networks.items())]
    searched = known_by(SEEDS, work.run.config, whole, [stage_fingerprint(work.run.folder("train"))])
    of = [searched, truth_identity(whole, work.run.config.data)]
    return {"pictures": len(dataset.samples), "asked": inputs.pictures, "of": of, "points": points}


def _score(work: Work, checkpoint: Path, dataset: Dataset, folder: Path) -> Metrics:
    seeds = work.inputs.seeds
    predictor = Predictor.open(checkpoint, seeds.search, seeds.options, device=str(work.device))
    found, _ = scored(predictor, dataset, folder, seeds)
    return {
        kind: {"miou": entry.plain.miou, "oracle": entry.oracle.miou}
        for kind, entry in found.items()
        if entry.plain is not None and entry.oracle is not None
    }
