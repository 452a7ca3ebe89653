"""What a stage says that it reads is what it reads, recorded over runs of every kind; and which option touches which stage."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le
from helpers import TINY, network_of, tiny
from PIL import Image
from safetensors.torch import save_file

from mupvss.config.run import RunConfig
from mupvss.data.masks import write_palette_png
from mupvss.data.sources import load_dataset
from mupvss.data.tags import write_tags
from mupvss.methods import METHODS
from mupvss.methods.mupvss import MupvssOptions
from mupvss.options import AFFINITIES, NETWORKS, NoAffinity, PEMConfig, Section, ViTConfig, added
from mupvss.stages.run import STAGES, run_all
from mupvss.stages.run_folder import Run, Stage, _plain, fingerprint, stage_fingerprint, truth_identity
from mupvss.stages.segment import TEST

MANNER = {"device", "threads", "workers", "checkpoint_every", "snapshots", "tensorboard", "preview"}
"""Options on which no result depends."""
SHORT = {**TINY, "data.scenes.train": 8, "data.scenes.seeds": 3, "train.image_steps": 8, "affinity.train.image_steps": 8,
         "segment.train.image_steps": 8, "search.scales": [1.0], "segment.presence": 1.0}  # fmt: skip
NARROW = {"affinity.kind": "net", "affinity.channels": 0.03125, "segment.network": "resnet38", "segment.channels": 0.03125}
CNN = {"model.patch_size": None, "model.backbone": "resnet38", "model.channels": 0.03125, "segment.presence": None, **NARROW}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Pictures in every layout but the drawn ones', and weights of a ViT."""
    root, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(0)
    voc, coco, own = root / "voc", root / "coco", root / "own"
    annotations = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    table = {}
    for folder in (voc / "JPEGImages", voc / "Annotations", voc / "ImageSets" / "Segmentation", coco / "train2014", own):
        folder.mkdir(parents=True)
    for i in range(4):
        name, tag = f"{i}", ("cat", "dog")[i % 2]
        image = Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8))
        mask = np.zeros((40, 48), np.uint8)
        mask[5:25, 10:30] = (8, 12)[i % 2]
        for place in (voc / "JPEGImages", coco / "train2014", own):
            image.save(place / f"{name}.jpg")
        write_palette_png(voc / "SegmentationClass" / f"{name}.png", mask)
        write_palette_png(own / "SegmentationClass" / f"{name}.png", np.where(mask > 0, 1 + i % 2, 0).astype(np.uint8))
        box = f"<object><name>{tag}</name><difficult>0</difficult></object>"
        (voc / "Annotations" / f"{name}.xml").write_text(f"<annotation>{box}</annotation>")
        annotations["images"].append({"id": i, "file_name": f"{name}.jpg", "height": 40, "width": 48})
        outline = {"segmentation": [[10, 5, 30, 5, 30, 25, 10, 25]], "bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0}
        annotations["annotations"].append({"id": i, "image_id": i, "category_id": 1 + i % 2, **outline})
        table[f"{name}.jpg"] = {tag}
    for split in ("train", "val"):
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("0\n1\n2\n3\n")
    (coco / "annotations").mkdir()
    (coco / "annotations" / "instances_train2014.json").write_text(json.dumps(annotations))
    write_tags(root / "tags.csv", table)
    save_file(dict(network_of().backbone.state_dict()), root / "vit.safetensors")
    return root


def runs(root) -> dict[str, dict[str, Any]]:
    """Twelve, which between them take every branch that an option opens."""
    literal = {
        "mupvss.global_embedding": "pool",
        "mupvss.token_start": "zero",
        "mupvss.pem.blocks": "all",
        "mupvss.pem.logits": "dot",
        "mupvss.pem.gate": "open",
        "mupvss.reduction": "sum",
        "mupvss.cip_form": "literal",
        "mupvss.p2p_pool": "sum",
        "mupvss.p2p_affine": False,
        "mupvss.p2p_cross": 0.0,
        "mupvss.ramp": 0.0,
        "mupvss.search.decision": "zero",
        "mupvss.search.global_prototypes": False,
    }
    none = {"affinity.kind": "none"}
    weights = {"model.weights": str(root / "vit.safetensors"), "search.maps": "search_and_cam_refined"}
    return {
        "scenes": {"mupvss.pem.blocks": "late", "mupvss.p2p_dense": 0.5},
        "literal": {**literal, **none, "masks.crf": "none", "masks.margin": 0.0},
        "weights": {**weights, "search.affinity": ["both"]},
        "chain": {**NARROW, "segment.presence": None, "segment.size": 48, "crossfit.folds": 2, "data.scenes.seeds": 4},
        "mctformer": {"method": "mctformer", "mctformer.token_contrast": 1.0, **none},
        "vit-cam": {"method": "vit-cam", **none, "segment.presence": 0.0, "search.kinds": ["cam", "cam_refined"]},
        "cnn-cam": {"method": "cnn-cam", **CNN},
        "recam": {"method": "recam", **CNN, "model.frozen_stages": 1},
        "voc": {"data.source": "voc", "data.root": root / "voc", **none, "data.classes": ["cat", "dog"]},
        "coco": {"data.source": "coco", "data.root": root / "coco", "data.val_split": "train2014", **none},
        "folder": {"data.source": "folder", "data.root": root / "own", "data.tags": root / "tags.csv", **none},
        "single": {"limit": 2, "baseline": False, **none, "search.pixel_steps": 0},
    }


def sections(part: Any, path: str = "") -> dict[int, tuple[str, Section]]:
    """Every section in a tree of them, by its id: its path, and itself."""
    found = {id(part): (path, part)}
    for name in type(part).model_fields:
        inner = part.__dict__[name]
        if isinstance(inner, Section):
            found |= sections(inner, f"{path}.{name}" if path else name)
    return found


def options_of(part: Section) -> list[str]:
    """The names of the fields that are no sections themselves."""
    return [name for name in type(part).model_fields if not isinstance(part.__dict__[name], Section)]


class Recorder:
    """What is read of sections while a stage works."""

    def __init__(self, monkeypatch):
        self.seen: set[tuple[int, str]] | None = None
        real = Section.__getattribute__

        def watched(section, name):
            if self.seen is not None and name in type(section).model_fields:
                self.seen.add((id(section), name))
            return real(section, name)

        monkeypatch.setattr(Section, "__getattribute__", watched)

    def around(self, stage: Stage, tell) -> Stage:
        def work(given):
            self.seen = set()
            try:
                return stage.work(given)
            finally:
                seen, self.seen = self.seen, None
                tell(stage.name, given, seen)

        return dataclasses.replace(stage, work=work)


@pytest.mark.slow
def test_what_is_declared_is_what_is_read(places, tmp_path, monkeypatch):
    recorder, strays = Recorder(monkeypatch), []
    declared, read = defaultdict(set), defaultdict(set)

    def tell(stage, work, seen):
        own = sections(work.inputs)
        for path, section in own.values():
            declared[stage] |= {(path, type(section).__name__, name) for name in options_of(section)}
        of_run = sections(work.run.config)
        for number, name in seen:
            if number in own:
                path, section = own[number]
                read[stage].add((path, type(section).__name__, name))
            elif number in of_run:
                strays.append((stage, of_run[number][0], name))

    for name, stage in list(STAGES.items()):
        monkeypatch.setitem(STAGES, name, recorder.around(stage, tell))
    for name, changes in runs(places).items():
        run_all(Run(tiny(changes, SHORT), tmp_path / name))
    # Read of the config itself, and so not declared: how a run is carried out; and what pictures are made of when they are
    # opened, which are known by their files, or by the names of the drawn ones.
    # Licences are kept in the networks, and no result depends on them.
    undeclared = {entry for entry in strays if not (entry[1] == "" and entry[2] in {*MANNER, "licences"})}
    undeclared = {entry for entry in undeclared if not entry[1].startswith(("data", "licences"))}
    assert undeclared == set()
    unread = {stage: declared[stage] - read[stage] for stage in declared}
    # A training of the segmentation network has what its test reads at the defaults: the checkpoint holds the whole section.
    unread["segment"] = {entry for entry in unread["segment"] if entry[2] not in TEST}
    unread["crossfit"] = {entry for entry in unread["crossfit"] if not (entry[0] == "networks.segment" and entry[2] in TEST)}
    # What says which class a section is, is read by the code that makes the class, before any stage.
    unread = {stage: {entry for entry in entries if entry[2] not in ("kind", "network")} for stage, entries in unread.items()}
    assert {stage: entries for stage, entries in unread.items() if entries} == {}
    assert set(declared) == set(STAGES)
    names = {entry[1] for entries in declared.values() for entry in entries}
    of_methods = [method.options for method in METHODS.values() if method.options.model_fields]
    for section in (*AFFINITIES.values(), *NETWORKS.values(), PEMConfig, *of_methods):
        assert section.__name__ in names, "no run has this section"


def leaves(part: Section, path: str = "") -> dict[str, tuple[Section, str]]:
    found = {}
    for name in type(part).model_fields:
        inner, here = part.__dict__[name], f"{path}.{name}" if path else name
        found |= leaves(inner, here) if isinstance(inner, Section) else {here: (part, name)}
    return found


def another(section: Section, name: str) -> Any:
    """A value that the option may have, and does not have."""
    field, value = type(section).model_fields[name], section.__dict__[name]
    if isinstance(value, bool):
        return not value
    choices = [entry for entry in _literals(field.annotation) if entry != value]
    if choices:
        return choices[0]
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        limits = {type(entry): entry for entry in field.metadata if isinstance(entry, (Ge, Gt, Le))}
        return value / 2 if Le in limits and value else value + 0.5
    if isinstance(value, tuple):
        named = {"classes": ("fish",), "kinds": ("cam",), "affinity": ("patch",), "pixel_distances": (1, 3)}
        return named.get(name) or tuple(v / 2 for v in value)
    special = {"backbone": "small", "crf": "psa", "maps": "cam", "method": "mctformer", "device": "cpu", "limit": 3, "workers": 2}
    special |= {"given": Path(__file__).parents[1] / "docs" / "figures"}  # any folder with pictures
    special |= {"image_steps": 5, "p2p_threshold": 0.5, "weights": "", "decoder": "package:drawn", "val": 2}
    return special.get(name, "another")


def _literals(annotation: Any) -> tuple[Any, ...]:
    found = get_args(annotation)
    return found if found and all(type(entry) is type(found[0]) and isinstance(entry, str | int) for entry in found) else ()


def touched(path: str, config: RunConfig) -> set[str]:
    """The stages whose own inputs an option belongs to, by the design; what builds on them runs again too."""
    if path in MANNER or path == "baseline" or path.startswith("licences."):
        return set()
    exact = {
        "seed": {"train", "cam_train", "affinity", "crossfit", "segment"},
        "train.flip": {"train", "cam_train", "affinity", "crossfit", "segment"},
        "crossfit.folds": {"crossfit", "segment"},
        "masks.crf_steps": {"affinity", "masks"},
        "masks.crf_pixels": {"affinity", "masks"},
        "search.maps": {"seeds"},
        "search.kinds": {"seeds"},
        "search.threshold": {"seeds"},
        "search.given": {"seeds"},
        "segment.scales": {"crossfit", "val"},
        "segment.crf": {"crossfit", "val"},
    }
    if path in exact:
        return exact[path] - ({"affinity"} if isinstance(config.affinity, NoAffinity) else set())
    first, second = (*path.split("."), "")[:2]
    if first in ("mupvss", "mctformer", "recam"):
        return {"seeds"} if second == "search" else {"train"}
    return {
        "model": {"train", "cam_train"},
        "train": {"train", "cam_train"},
        "search": {"seeds", "cam"},
        "affinity": {"affinity"},
        "masks": {"masks"},
        "crossfit": {"crossfit"},
        "segment": {"crossfit", "segment"},
    }[first]


CONFIGS = {
    "mupvss, head, vit": {},
    "mctformer, none": {"method": "mctformer", "affinity.kind": "none"},
    "mupvss, net, resnet38": {**NARROW, "segment.presence": None},
    "recam": {"method": "recam", **CNN},
    "cnn-cam": {"method": "cnn-cam", **CNN},
    "vit-cam": {"method": "vit-cam", "segment.presence": 0.0},
}


@pytest.mark.parametrize("which", CONFIGS)
def test_each_option_touches_the_stages_it_belongs_to_and_no_other(which):
    config = tiny(CONFIGS[which], SHORT)
    before = {name: fingerprint(stage.inputs(config)) for name, stage in STAGES.items() if name != "report"}
    changed = 0
    for path, (section, name) in leaves(config).items():
        if path.startswith("data.") or path in ("method", "limit") or name in ("kind", "network"):
            continue  # known by the pictures, their tags and their masks; or another section altogether
        other = _set(config, path.split("."), another(section, name))
        after = {stage: fingerprint(STAGES[stage].inputs(other)) for stage in before}
        assert {stage for stage in before if before[stage] != after[stage]} == touched(path, config), path
        changed += 1
    assert changed > 50


def _set(part: Section, path: list[str], value: Any) -> Any:
    inner = value if len(path) == 1 else _set(part.__dict__[path[0]], path[1:], value)
    return part.model_copy(update={path[0]: inner})


def test_each_option_of_the_pictures_is_seen(places):
    """By the pictures that it lists, their tags, or what their masks count as."""

    def known(changes):
        config = tiny(changes, SHORT)
        pictures = [load_dataset(config.data, purpose, config.limit) for purpose in ("train", "seeds", "val")]
        listed = [(p.classes, [(s.name, sorted(s.tags), s.open_mask is not None) for s in p.samples]) for p in pictures]
        return fingerprint(listed, truth_identity(pictures[1], config.data))

    assert known({}) == known({"train.lr": 1.0})
    for option, value in (("data.classes", ["fish"]), ("data.other_classes", "ignore"), ("data.seed_every", 2), ("limit", 2),
                          ("data.scenes.train", 9), ("data.scenes.seeds", 2), ("data.scenes.val", 1),
                          ("data.scenes.seed", 5)):  # fmt: skip
        assert known({option: value}) != known({}), option
    voc = {"data.source": "voc", "data.root": places / "voc"}
    (places / "voc" / "ImageSets" / "Segmentation" / "half.txt").write_text("0\n1\n")
    for option in ("train_split", "seed_split", "val_split", "score_split", "seed_without"):
        assert known({**voc, f"data.{option}": "half"}) != known(voc), option
    assert known({**voc, "data.masks": "elsewhere"}) != known(voc)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = Run(
        tiny({"segment.train.image_steps": 8, "train.image_steps": 16, "crossfit.folds": 2}), tmp_path_factory.mktemp("run")
    )
    run_all(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "again"),
    [
        ("masks.crf_steps", 3, {"affinity", "masks", "crossfit", "segment", "val", "report"}),
        ("segment.scales", (0.5, 1.0), {"crossfit", "segment", "val", "report"}),
        ("search.maps", "cam", {"seeds", "affinity", "masks", "crossfit", "segment", "val", "report"}),
        ("train.flip", False, set(STAGES)),
    ],
)
def test_what_runs_again(finished, tmp_path, option, value, again):
    """The whole job: a stage that builds on one that is made again is made again too, and no other."""
    before = {name: stage_fingerprint(finished.folder(name)) for name in STAGES}
    assert all(before.values())
    run_all(Run(_set(finished.config, option.split("."), value), finished.out))
    after = {name: stage_fingerprint(finished.folder(name)) for name in STAGES}
    try:
        assert {name for name in STAGES if before[name] != after[name]} == again
    finally:
        run_all(finished)


def test_an_option_that_comes_later_leaves_finished_runs_valid():
    class Before(Section):
        lr: float = 1.0

    class After(Before):
        momentum: float = added(0.9, neutral=0.0)
        """What came later; at 0 everything is as it was."""

    assert fingerprint(Before()) == fingerprint(After(momentum=0.0)) != fingerprint(After())
    assert "momentum" in _plain(After())


def test_full_values_count():
    """A default that changes makes another result, though nobody's config names the option."""

    class Before(Section):
        lr: float = 1.0

    class After(Section):
        lr: float = 2.0

    assert fingerprint(Before()) != fingerprint(After())
    assert fingerprint(ViTConfig()) != fingerprint(ViTConfig(drop_path=0.0))
    later = {name for name, field in MupvssOptions.model_fields.items() if "neutral" in (field.json_schema_extra or {})}
    assert set(_plain(MupvssOptions())) == set(MupvssOptions.model_fields) - later
    assert set(_plain(MupvssOptions(competition=1.0, prototypes_seen=False, pooling="attention"))) == set(
        MupvssOptions.model_fields
    )
