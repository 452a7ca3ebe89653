"""How many planted tag errors the doctor finds: the network learns from corrupted tags, then looks for them.

python experiments/planted_tags.py CONFIG [--missing 0.1] [--wrong 0.05] [--image-steps 12800] [--seed 0] [--out DIR]

Of all pictures a share `missing` loses a tag, a share `wrong` gets one that does not hold. The list has one row per picture,
the most doubtful first; what counts is how many corrupted pictures lie among its first 15 %, and how many are named with the
very tag that was planted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from trials import claim

from mupvss.config.load import load_config
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.doctor.evidence import Evidence, gather_evidence
from mupvss.doctor.tags import findings, strengths, tag_doubts
from mupvss.methods import find_method
from mupvss.predict.predictor import Predictor
from mupvss.runtime.device import prepare
from mupvss.stages.run_folder import Run, dataset_identity, fingerprint
from mupvss.stages.train import train_inputs
from mupvss.training.classifier import train_classifier
from mupvss.training.loop import remove_states

FIRST = 0.15


def corrupt(dataset: Dataset, missing: float, wrong: float, seed: int) -> tuple[Dataset, dict[str, str]]:
    """The data set with planted errors, and per corrupted picture the tag that was dropped or put in."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    planted = {}
    for sample in dataset.samples:
        draw, given, others = rng.random(), sorted(sample.tags), sorted(set(dataset.classes) - sample.tags)
        chosen = None
        if draw < missing and given:
            chosen = given[rng.integers(len(given))]
        elif missing <= draw < missing + wrong and others:
            chosen = others[rng.integers(len(others))]
        if chosen is not None:
            planted[sample.name] = chosen
            sample = dataclasses.replace(sample, tags=sample.tags ^ {chosen})
        samples.append(sample)
    return Dataset(dataset.classes, samples), planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--missing", type=float, default=0.1)
    parser.add_argument("--wrong", type=float, default=0.05)
    parser.add_argument("--image-steps", type=int)
    parser.add_argument("--snapshots", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/planted"))
    given = parser.parse_args()
    config = load_config(given.config)
    train = config.train.model_copy(update={"image_steps": given.image_steps or config.train.image_steps})
    config = config.model_copy(update={"train": train, "snapshots": given.snapshots, "seed": given.seed})
    prepare(given.seed, config.threads)
    dataset, planted = corrupt(load_dataset(config.data, "train", given.limit), given.missing, given.wrong, given.seed)
    identity = fingerprint(train_inputs(config), dataset_identity(dataset))
    claim(given.out, identity)
    if not (given.out / "model.safetensors").is_file():
        settings = (find_method(config.method), config.model, config.options, train, given.seed)
        train_classifier(*settings, dataset, Run(config, given.out).manner, given.out, identity)
        remove_states(given.out)
    paths = [given.out / "model.safetensors", *sorted((given.out / "snapshots").glob("*.safetensors"))]
    tags = np.stack([dataset.tag_vector(sample) for sample in dataset.samples])
    for chosen in (paths[:1], paths) if len(paths) > 1 else (paths,):
        networks = [Predictor.open(path, config.search, config.search_options) for path in chosen]
        name = f"evidence-{len(chosen)}.jsonl"
        evidence = gather_evidence(networks, dataset, given.out / name, identity)
        report(dataset, planted, evidence, tags, len(chosen))


def report(dataset: Dataset, planted: dict[str, str], evidence: Evidence, tags: np.ndarray, networks: int) -> None:
    listed = findings(tag_doubts(strengths(evidence, tags), tags), evidence.scores, tags, dataset.classes)
    first = listed[: round(FIRST * len(listed))]
    found = [f for f in first if dataset.samples[f.picture].name in planted]
    exact = [f for f in found if f.tag == planted[dataset.samples[f.picture].name]]
    print(
        json.dumps(
            {
                "networks": networks,
                "pictures": len(dataset.samples),
                "corrupted": len(planted),
                "listed": len(first),
                "found_percent": round(100 * len(found) / max(1, len(planted)), 1),
                "named_percent": round(100 * len(exact) / max(1, len(planted)), 1),
                "possible_percent": round(100 * min(1, len(first) / max(1, len(planted))), 1),
                "precision_percent": round(100 * len(found) / max(1, len(first)), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
