"""Other ways to search with networks that are trained already: what each part of the search is worth, and what might beat it.

    python experiments/searches.py RUN [RUN ...] [--every 3] [--only NAME ...] [--threads 1] [--json FILE]

Nothing is trained. All ways share the passes through the network over every n-th picture of the run, and each is scored with the
threshold chosen without masks and with the best one (oracle). A way is named by what differs from ours:

- printed parts, one at a time: a decision at zero, each scale's own prototypes, no attention affinity, the affinity's power, no
  averaging over pixels, products in place of cosines; and all of them together;
- competition over all classes;
- prototypes of others: the mean of all pictures with the tag, the picture's own and its nearest ones;
- several prototypes per class: centres of the patches that the search found in all pictures with the tag, against centres of
  those that it did not find there; weighed by how rare each is in pictures without the tag; and the search times these.

No way but the last ones, to compare with, uses the classifier's weights or maps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from trials import score_ways

from mupvss.data.preprocess import resize_for_search, working_scale
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.methods.mupvss import MupvssSearch, shared
from mupvss.model.features import Features
from mupvss.options import SearchConfig
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.runtime.device import prepare
from mupvss.runtime.log import each
from mupvss.search import maps as m
from mupvss.search.centres import Centres, Seen, gather, gather_once, seen
from mupvss.search.multiscale import along_edges, canvas_size, cell_size, only_classes, stretch, to_canvas, upright, views_of
from mupvss.search.seeds import Seeds, seed_path, write_seeds
from mupvss.search.spatial_search import SHARPNESS, centres_map, prototype_map

CENTRES = 4
"""Per class, of what was found; twice as many of what was not."""
NEAREST = 5


@dataclasses.dataclass(frozen=True)
class Weighed:
    """Centres, and how rare they are without the tag."""

    centres: Centres
    rarity: Tensor
    """(C, K): of the patches nearest to a centre of what was found, the logarithm of how much more often they come from pictures
    with the tag than pictures have it, at least 0."""


@dataclasses.dataclass(frozen=True)
class Known:
    """What one pass over all tagged pictures tells."""

    prototypes: Mapping[str, Tensor]
    """By picture, of unit length, (C, D)."""
    tags: Mapping[str, list[int]]
    centres: Mapping[str, Weighed]
    """By how they were made."""


@dataclasses.dataclass(frozen=True)
class Way:
    make: Callable[[Features, SearchConfig, MupvssSearch, Known, str, list[int]], Tensor]
    search: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refined: bool = True
    raw: bool = False
    joins: tuple[str, str] | None = None
    """Instead of what `make` gives: the geometric mean of two other ways, which must be searched too."""


def attended(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda f, s, o, *rest: m.root_attention(f, s, o) * make(f, s, o, *rest)


def plain(f: Features, s: SearchConfig, o: MupvssSearch, *rest: Any) -> Tensor:
    return m.search(f, s, o)


def product(f: Features, s: SearchConfig, o: MupvssSearch, *rest: Any) -> Tensor:
    assert f.prototypes is not None
    return (f.prototypes.float() @ f.patches.float().transpose(1, 2)).relu()


def with_prototypes(choose: Callable[[Known, str, list[int]], Tensor]) -> Callable[..., Tensor]:
    def make(f: Features, s: SearchConfig, o: MupvssSearch, known: Known, name: str, classes: list[int]) -> Tensor:
        assert f.decision_scale is not None
        assert f.decision_bias is not None
        other = choose(known, name, classes).unsqueeze(0).expand(len(f.patches), -1, -1)
        return prototype_map(f.patches, other, f.decision_scale, f.decision_bias)

    return make


def mean_of_class(known: Known, name: str, classes: list[int]) -> Tensor:
    rows = []
    for c in classes:
        having = [known.prototypes[other][c] for other, tags in known.tags.items() if c in tags]
        rows.append(F.normalize(torch.stack(having).mean(0), dim=-1))
    return torch.stack(rows)


def nearest_of_class(known: Known, name: str, classes: list[int]) -> Tensor:
    rows = []
    for c in classes:
        own = known.prototypes[name][c]
        having = torch.stack([known.prototypes[other][c] for other, tags in known.tags.items() if c in tags and other != name])
        near = having[(having @ own).topk(min(NEAREST, len(having))).indices]
        rows.append(F.normalize(torch.cat((own.unsqueeze(0), near)).mean(0), dim=-1))
    return torch.stack(rows)


def centres(which: str, weighed: bool = False) -> Callable[..., Tensor]:
    def make(f: Features, s: SearchConfig, o: MupvssSearch, known: Known, name: str, classes: list[int]) -> Tensor:
        return nearer_to_found(f.patches, known.centres[which], classes, weighed)

    return make


def nearer_to_found(patches: Tensor, known: Weighed, classes: list[int], weighed: bool) -> Tensor:
    """`centres_map`; weighed: a centre that is as frequent without the tag counts less."""
    found, other = known.centres.found[classes], known.centres.other[classes]
    if not weighed:
        return centres_map(patches, found, other)
    unit = SHARPNESS * F.normalize(patches.float(), dim=-1)
    there = torch.einsum("bnd,ckd->bckn", unit, found) + known.rarity[classes].clamp_min(1e-3).log()[None, :, :, None]
    absent = torch.einsum("bnd,ckd->bckn", unit, other)
    return torch.sigmoid(there.logsumexp(2) - absent.logsumexp(2) + np.log(2.0))


def times(one: Callable[..., Tensor], other: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: one(*arguments) * other(*arguments)


PATCH = {"affinity": ("patch",)}
PRINTED = {"affinity": ("patch",), "affinity_power": 1.0, "pixel_steps": 0}
ALONE: dict[str, Way] = {
    "ours": Way(plain),
    "decision at zero": Way(plain, own={"decision": "zero"}),
    "each scale's own prototypes": Way(plain, own={"global_prototypes": False}),
    "no attention affinity": Way(plain, PATCH),
    "power 1": Way(plain, {"affinity_power": 1.0}),
    "patch affinity alone, power 1": Way(plain, {**PATCH, "affinity_power": 1.0}),
    "no averaging over pixels": Way(plain, {"pixel_steps": 0}),
    "products": Way(product),
    "not refined": Way(plain, refined=False),
    "as printed, cosines": Way(plain, PRINTED, {"decision": "zero", "global_prototypes": False}),
    "as printed": Way(product, PRINTED, {"decision": "zero", "global_prototypes": False}, raw=True),
    "times competition": Way(plain, own={"competition": "times"}),
    "competition alone": Way(plain, own={"competition": "alone"}),
    "mean prototypes of the class": Way(with_prototypes(mean_of_class)),
    "own and nearest prototypes": Way(with_prototypes(nearest_of_class)),
    "centres": Way(centres("once")),
    "centres, weighed": Way(centres("once", weighed=True)),
    "centres, twice": Way(centres("twice")),
    "centres, more": Way(centres("more")),
    "search × centres": Way(times(plain, centres("once"))),
    "search × centres, weighed": Way(times(plain, centres("once", weighed=True))),
    "search × centres, twice": Way(times(plain, centres("twice"))),
    "search × centres, more": Way(times(plain, centres("more"))),
    "search × competition × centres": Way(times(plain, centres("once")), own={"competition": "times"}),
}
CLASSIFIER = "classifier × attention, refined"
OF_ATTENTION = (
    "ours",
    "times competition",
    "centres",
    "centres, twice",
    "centres, more",
    "search × centres",
    "search × centres, twice",
)
WAYS: dict[str, Way] = {
    **ALONE,
    **{f"attention: {name}": dataclasses.replace(ALONE[name], make=attended(ALONE[name].make)) for name in OF_ATTENTION},
    CLASSIFIER: Way(lambda f, s, o, *rest: m.attended_cam(f, s, o)),
    **{
        f"with classifier: {name}": Way(plain, joins=(f"attention: {name}", CLASSIFIER))
        for name in ("ours", "centres", "centres, twice")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=3, help="every n-th picture is searched and scored")
    parser.add_argument("--only", nargs="*", default=[], help="ways, by name; default: all")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--size", type=int, default=432, help="search.size")
    parser.add_argument("--json", type=Path, help="the figures are added to this file, one JSON object per run")
    given = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if not given.only or name in given.only}
    for run in given.runs:
        config = FinishedRun(run).config("train")
        prepare(config.seed, given.threads)
        dataset = load_dataset(config.data, "seeds", config.limit)
        search = SearchConfig(size=given.size, threshold="middle")
        predictor = Predictor.open(run / "train" / "model.safetensors", search, MupvssSearch())
        known = look(predictor, dataset)
        chosen = Dataset(dataset.classes, dataset.samples[:: given.every])
        with tempfile.TemporaryDirectory() as folder:
            for sample in each(run.name, chosen.samples):
                for name, seeds in search_all_ways(predictor, sample, dataset, known, ways).items():
                    write_seeds(seed_path(Path(folder), name, sample.name), seeds)
            found = score_ways(run, chosen, Path(folder), ways, config.data.background == "some")
        if given.json is not None:
            with given.json.open("a") as stream:
                stream.write(json.dumps({"run": run.name, **found}) + "\n")


@torch.no_grad()
def look(predictor: Predictor, dataset: Dataset) -> Known:
    """One pass over every picture at the size of the training: prototypes, and the patches that the search finds."""
    prototypes: dict[str, Tensor] = {}
    tags: dict[str, list[int]] = {}
    looked: list[Seen] = []
    for sample in each("prototypes", dataset.samples):
        classes = dataset.tagged(sample)
        image = sample.open_image()
        scale = predictor.info.model.image_size / (image.width * image.height) ** 0.5
        resized = resize_for_search(image, scale, predictor.stride)
        features = views_of(predictor.network, resized, predictor.config, need_attention=True)
        prototypes[sample.name], tags[sample.name] = shared(features, MupvssSearch())["prototypes"][0], classes
        if classes:
            first = predictor.features(image, need_attention=True)
            looked.append(seen(first, classes, predictor.maps, "attended_search_refined", predictor.config, MupvssSearch()))
    count = len(dataset.classes)
    made = {
        "once": gather_once(looked, count, CENTRES),
        "twice": gather(looked, count, CENTRES),
        "more": gather_once(looked, count, 2 * CENTRES),
    }
    return Known(prototypes, tags, {name: Weighed(centres, rarity(looked, centres, count)) for name, centres in made.items()})


def rarity(looked: list[Seen], centres: Centres, classes: int) -> Tensor:
    """As in `Weighed`, of 40 patches of every picture."""
    generator = torch.Generator().manual_seed(0)
    parts = [one.patches[torch.randperm(len(one.patches), generator=generator)[:40]].float() for one in looked]
    owner = torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)])
    everything = torch.cat(parts)
    having = torch.tensor([[c in one.classes for c in range(classes)] for one in looked], dtype=torch.float32)
    near = torch.einsum("pd,ckd->ckp", everything, centres.found).topk(min(200, len(everything)), dim=-1).indices  # (C, K, 200)
    share = torch.stack([having[owner[near[c]], c].mean(-1) for c in range(classes)])
    return (share / having.mean(0).clamp_min(1e-6).unsqueeze(1)).clamp_min(1e-6).log().clamp_min(0)


@torch.no_grad()
def search_all_ways(
    predictor: Predictor, sample: Sample, dataset: Dataset, known: Known, ways: Mapping[str, Way]
) -> dict[str, Seeds]:
    """As `search_maps`, for all ways at once."""
    image, search = sample.open_image(), predictor.config
    classes = dataset.tagged(sample)
    cell = cell_size(image.size, search)
    size = canvas_size(*image.size, cell)
    made = {name: way for name, way in ways.items() if way.joins is None}
    sums = {name: torch.zeros(len(classes), *size) for name in made}
    base = working_scale(image.size, search.size)
    own = known.prototypes[sample.name].unsqueeze(0)
    for scale in search.scales if classes else ():
        resized = resize_for_search(image, base * scale, predictor.stride)
        features = views_of(predictor.network, resized, search, need_attention=True)
        assert features.prototypes is not None
        common = dataclasses.replace(features, prototypes=own.expand_as(features.prototypes))
        for name, way in made.items():
            settings, options = search.model_copy(update=way.search), MupvssSearch(**way.own)
            chosen = only_classes(common if options.global_prototypes else features, classes)
            maps = way.make(chosen, settings, options, known, sample.name, classes)
            if way.raw:  # M A, both of plain products
                f = chosen.patches.float()
                maps = (maps @ (f @ f.transpose(1, 2))).relu()
            elif way.refined:
                maps = m._refined(maps, chosen, settings)
            sums[name] += to_canvas(upright(maps, features.grid), size)
    drawn = {}
    for name, way in made.items():
        settings = search.model_copy(update=way.search)
        drawn |= along_edges({name: stretch(sums[name])}, [name] if way.refined and classes else [], image, settings)
    for name, way in ways.items():
        if way.joins is not None:
            drawn[name] = (drawn[way.joins[0]] * drawn[way.joins[1]]).sqrt()
    labels = np.array(classes, np.int16) + 1
    return {name: Seeds(labels, maps.numpy(), (image.height, image.width), cell) for name, maps in drawn.items()}


if __name__ == "__main__":
    main()
