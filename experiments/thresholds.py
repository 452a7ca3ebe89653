"""Rules that choose a background threshold without masks, against the best single threshold, on finished runs with true masks.

    python experiments/thresholds.py RUN [RUN ...] [--kind attended_search_refined] [--erase 80] [--untagged 200]

Nothing is trained. For every run: the threshold that each rule chooses, its mIoU over all pictures, and what it loses against the
best threshold (oracle). --erase N adds the rule of erasing and keeping, on N pictures: the network is asked for each tag with the
mask's pixels erased, and with nothing but them; the threshold at which the two differ most is taken. It also adds the area of
P2P's own decision on those pictures. --untagged N adds rules that ask, on N pictures, how much of a class's own pictures cannot
be explained by those without the tag.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.data.sample import Dataset, evenly
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.sweep import BINS, best_threshold, level_counts, matrix_at, threshold_histogram
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.runtime.device import prepare
from mupvss.search.seeds import Seeds, read_seeds, seed_path
from mupvss.search.spatial_search import prototype_map
from mupvss.search.threshold import otsu, three_groups
from mupvss.stages.scoring import levels_of_three, read_mask

STEPS = np.arange(10, 95, 5)
"""Thresholds in hundredths that erasing and keeping tries."""


def kittler(counts: np.ndarray) -> float:
    """Least error of two normal distributions (Kittler and Illingworth 1986), whose shares and widths may differ."""
    value, share = np.arange(BINS + 1) / BINS, counts / counts.sum()
    best, chosen = np.inf, 0.5
    for k in range(2, BINS):
        low, high = share[:k], share[k:]
        p, q = low.sum(), high.sum()
        if min(p, q) < 1e-4:
            continue
        a, b = (low * value[:k]).sum() / p, (high * value[k:]).sum() / q
        s, t = (low * (value[:k] - a) ** 2).sum() / p, (high * (value[k:] - b) ** 2).sum() / q
        if min(s, t) < 1e-6:
            continue
        cost = p * np.log(s) / 2 + q * np.log(t) / 2 - p * np.log(p) - q * np.log(q)
        if cost < best:
            best, chosen = cost, k / BINS
    return chosen


def kapur(counts: np.ndarray) -> float:
    """Greatest entropy of both parts (Kapur, Sahoo and Wong 1985)."""
    share, best, chosen = counts / counts.sum(), -np.inf, 0.5
    for k in range(1, BINS):
        found = 0.0
        for part in (share[:k], share[k:]):
            total = part.sum()
            part = part[part > 0] / max(total, 1e-12)
            found += -(part * np.log(part)).sum()
        if found > best:
            best, chosen = found, k / BINS
    return chosen


def triangle(counts: np.ndarray) -> float:
    """Farthest from the line between the highest bin and the last one (Zack, Rogers and Latt 1977)."""
    peak = int(counts[: BINS // 2].argmax())
    line = np.linspace(counts[peak], counts[-1], BINS + 1 - peak)
    return (peak + int((line - counts[peak:]).argmax())) / BINS


def otsu_twice(counts: np.ndarray) -> float:
    """Otsu once more among what is over Otsu's threshold."""
    first = round(otsu(counts) * BINS)
    upper = counts.copy()
    upper[:first] = 0
    return otsu(upper)


def valley(counts: np.ndarray, width: int = 5) -> float:
    """Otsu's criterion times the emptiness of the histogram around the threshold (Ng 2006; Fan and Lei 2012)."""
    value, share = np.arange(BINS + 1) / BINS, counts / counts.sum()
    smooth = np.convolve(np.pad(share, width, mode="edge"), np.ones(2 * width + 1) / (2 * width + 1), "valid")
    above, mean = share[::-1].cumsum()[::-1], (share * value)[::-1].cumsum()[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.nan_to_num(above * (1 - above) * (mean / above - (mean[0] - mean) / (1 - above)) ** 2)
    return int(((1 - smooth / smooth.max()) * between)[1:-1].argmax() + 1) / BINS


POOLED: dict[str, Callable[[np.ndarray], float]] = {
    "otsu": otsu,
    "kittler": kittler,
    "kapur": kapur,
    "triangle": triangle,
    "otsu twice": otsu_twice,
    "valley": valley,
    "three groups": three_groups,
}


def examine(run: Path, kind: str | None, erased: int, without: int = 0) -> dict[str, dict[str, float]]:
    found = FinishedRun(run)
    config = found.config("seeds")
    dataset, kind = load_dataset(config.data, "seeds", config.limit), kind or found.maps
    assert kind is not None
    size = len(dataset.classes) + 1
    histogram, counts = np.zeros((BINS + 1, size, size), np.int64), np.zeros(BINS + 1, np.int64)
    per_class = np.zeros((size, BINS + 1), np.int64)
    own: list[tuple[str, float]] = []
    for sample in dataset.samples:
        seeds = read_seeds(seed_path(run / "seeds", kind, sample.name))
        value, label = seeds.best()
        here = level_counts(value)
        if len(seeds.ids):
            counts += here
            own.append((sample.name, otsu(here)))
        for i in seeds.ids:
            per_class[i] += level_counts(value[label == i])
        if sample.open_mask is not None:
            histogram += threshold_histogram(value, label, read_mask(sample, seeds.size), size)
    best, oracle = best_threshold(histogram)
    chosen = {name: rule(counts) for name, rule in POOLED.items()}
    chosen["median of otsu"] = float(np.median([threshold for _, threshold in own]))
    chosen["middle"] = (chosen["median of otsu"] + chosen["three groups"]) / 2
    chosen |= agreement(run, dataset, chosen["otsu"])
    if erased:
        predictor = load_classifier(run, "cpu")
        chosen["erase and keep"] = erase_and_keep(predictor, dataset, run, kind, erased)
        chosen["area of the decision"] = area_of_decision(predictor, dataset, counts, erased)
    if without:
        chosen |= untagged(load_classifier(run, "cpu"), dataset, counts, without)
    table = {"oracle": {"threshold": best, "miou": oracle.miou}}
    for name, threshold in chosen.items():
        table[name] = {"threshold": threshold, "miou": scores(matrix_at(histogram, round(threshold * BINS))).miou}
    table["otsu per class"] = {"threshold": -1, "miou": _apart(dataset, run, kind, per_class, None)}
    table["otsu per picture"] = {"threshold": -1, "miou": _apart(dataset, run, kind, per_class, dict(own))}
    return table


def agreement(run: Path, dataset: Dataset, usual: float) -> dict[str, float]:
    """Where search and classifier agree best (kappa), and the threshold nearest to the usual one where they agree as well, to
    0.01; nothing where their maps are not kept."""
    pair = ("attended_search_refined", "attended_cam_refined")
    if not all((run / "seeds" / "maps" / kind).is_dir() for kind in pair):
        return {}
    counts = np.zeros((3, BINS + 1), np.int64)
    for sample in dataset.samples:
        if sample.tags:
            one, other = (read_seeds(seed_path(run / "seeds", kind, sample.name)).maps.max(0) for kind in pair)
            counts += levels_of_three(one, other)
    a, b, both = (part[::-1].cumsum()[::-1] / part.sum() for part in counts)
    expected = a * b + (1 - a) * (1 - b)
    kappa = ((1 - a - b + 2 * both - expected) / np.maximum(1 - expected, 1e-9))[5:96]
    near = np.flatnonzero(kappa >= kappa.max() - 0.01) + 5
    nearest = int(near[np.abs(near - usual * BINS).argmin()])
    return {"agreement": (int(kappa.argmax()) + 5) / BINS, "agreement near otsu": nearest / BINS}


def _apart(dataset: Dataset, run: Path, kind: str, per_class: np.ndarray, own: dict[str, float] | None) -> float:
    """mIoU with a threshold per class, or per picture."""
    size = len(dataset.classes) + 1
    levels_of = np.array([otsu(c) if c.any() else 0.5 for c in per_class], np.float32)
    matrix = np.zeros((size, size), np.int64)
    for sample in dataset.samples:
        if sample.open_mask is None:
            continue
        seeds = read_seeds(seed_path(run / "seeds", kind, sample.name))
        value, label = seeds.best()
        limit = levels_of[label] if own is None else own.get(sample.name, 0.5)
        matrix += confusion_matrix(np.where(value >= limit, label, 0), read_mask(sample, seeds.size), size)
    return scores(matrix).miou


@torch.no_grad()
def erase_and_keep(predictor: Predictor, dataset: Dataset, run: Path, kind: str, count: int) -> float:
    """The threshold of the greatest mean of p(tag | kept) - p(tag | erased)."""
    gain = np.zeros(len(STEPS))
    kept_by, erased_by = np.zeros(len(STEPS)), np.zeros(len(STEPS))
    for sample in evenly([s for s in dataset.samples if s.tags], count):
        seeds = read_seeds(seed_path(run / "seeds", kind, sample.name))
        kept, erased = _answers(predictor, sample.open_image(), seeds)
        gain += (kept - erased).mean(0)
        kept_by += kept.mean(0) / count
        erased_by += erased.mean(0) / count
    print("  t    ", " ".join(f"{t:4d}" for t in STEPS))
    print("  kept ", " ".join(f"{100 * v:4.0f}" for v in kept_by))
    print("  erased", " ".join(f"{100 * v:4.0f}" for v in erased_by))
    return float(STEPS[gain.argmax()] / 100)


@torch.no_grad()
def area_of_decision(predictor: Predictor, dataset: Dataset, counts: np.ndarray, count: int) -> float:
    """The threshold that keeps the share of pixels for which P2P's learned decision is positive."""
    shares = []
    for sample in evenly([s for s in dataset.samples if s.tags], count):
        features = predictor.features(sample.open_image())
        assert features.prototypes is not None
        assert features.decision_scale is not None
        assert features.decision_bias is not None
        decided = prototype_map(features.patches, features.prototypes, features.decision_scale, features.decision_bias)
        tagged = dataset.tagged(sample)
        shares.append(float((decided[0, tagged].amax(0) > 0).float().mean()))
    share = float(np.mean(shares))
    print(f"  share of the decision {100 * share:.1f} %")
    above = counts[::-1].cumsum()[::-1] / counts.sum()
    return float(np.abs(above - share).argmin() / BINS)


LEVELS = {
    "untagged, least ratio": np.arange(0.2, 1.0, 0.01),
    "untagged, 95 %": np.array([0.95]),
    "untagged, 99 %": np.array([0.99]),
}
"""Quantiles of the untagged pictures' patches at which the two distributions are compared."""


@torch.no_grad()
def untagged(predictor: Predictor, dataset: Dataset, counts: np.ndarray, count: int) -> dict[str, float]:
    """Thresholds that keep as much as pictures without the tag cannot explain.

    If a share p of a class's own pictures is the object and the rest looks like pictures without the tag, the shares of patches
    below a level s obey F_own(s) = (1 - p) F_untagged(s) + p F_object(s). So p is at least 1 - F_own(s) / F_untagged(s), and the
    greatest such bound estimates it (as in learning from positive and unlabelled examples). Values are the classifier's logits
    and the cosines of the search, one pass per picture.
    """
    samples = evenly([s for s in dataset.samples if s.tags], count)
    values: dict[str, list[np.ndarray]] = {"cam": [], "search": []}
    for sample in samples:
        features = predictor.features(sample.open_image())
        values["cam"].append(features.patch_logits[0].float().numpy())
        if features.prototypes is not None:
            unit = F.normalize(features.prototypes[0].float(), dim=-1) @ F.normalize(features.patches[0].float(), dim=-1).T
            values["search"].append(unit.numpy())
    above = counts[::-1].cumsum()[::-1] / counts.sum()
    tagged = np.array([[name in sample.tags for name in dataset.classes] for sample in samples])
    found = {}
    for what, rows in values.items():
        if not rows:
            continue
        for name, quantiles in LEVELS.items():
            area = 0.0
            for c in range(len(dataset.classes)):
                own = [row[c] for row, has in zip(rows, tagged[:, c], strict=True) if has]
                other = [row[c] for row, has in zip(rows, tagged[:, c], strict=True) if not has]
                if own and other:
                    levels = np.quantile(np.concatenate(other), quantiles)
                    below = np.searchsorted(np.sort(np.concatenate(own)), levels) / sum(map(len, own))
                    area += max(0.0, float((1 - below / quantiles).max())) * len(own)
            share = area / len(samples)
            found[f"{name}, {what}"] = float(np.abs(above - share).argmin() / BINS)
            print(f"  {name}, {what}: {100 * share:.1f} % of the pictures")
    return found


def _answers(predictor: Predictor, image, seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """Probabilities (tags, thresholds) of each tag: with nothing but its mask, and without its mask."""
    model = predictor.info.model
    scale = model.image_size / np.sqrt(image.width * image.height)
    picture = normalise(resize_for_search(image, float(scale), model.patch_size))
    size = picture.shape[-2:]
    maps = F.interpolate(torch.from_numpy(seeds.maps.astype(np.float32))[None], size=size, mode="bilinear")[0]
    first = maps == maps.amax(0)
    kept, erased = [], []
    for number, index in enumerate(seeds.ids - 1):
        masks = torch.stack([(maps[number] >= t / 100) & first[number] for t in STEPS])[:, None].float()
        for parts, masked in ((kept, masks), (erased, 1 - masks)):
            parts.append(_probability(predictor, picture * masked)[:, index].numpy())  # zero is ImageNet's mean colour
    return np.stack(kept), np.stack(erased)


def _probability(predictor: Predictor, images: Tensor) -> Tensor:
    features = predictor.network(images)
    logits = features.patch_score if features.token_score is None else (features.patch_score + features.token_score) / 2
    return torch.sigmoid(logits.float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--kind", help="kind of map; default: the one that became masks")
    parser.add_argument("--erase", type=int, default=0, metavar="N")
    parser.add_argument("--untagged", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    prepare(0, options.threads)
    found = {}
    for run in options.runs:
        found[str(run)] = table = examine(run, options.kind, options.erase, options.untagged)
        print(f"{run}: best {table['oracle']['miou']:.1f} at {table['oracle']['threshold']:.2f}")
        for name, entry in table.items():
            loss = table["oracle"]["miou"] - entry["miou"]
            print(f"  {name:30s} {entry['threshold']:5.2f} {entry['miou']:6.1f}  -{loss:.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
