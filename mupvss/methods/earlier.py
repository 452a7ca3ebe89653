"""Translates options of version 0.1.0 into today's.

Configs and headers of checkpoints go through `modern`; `stages/earlier.py` recognises the finished runs of that version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mupvss.errors import ConfigError
from mupvss.options import SOURCES

MAPS = {
    "default": "attended_search_refined",
    "prototype": "search_refined",
    "prototype_only": "search",
    "with_classifier": "search_and_cam_refined",
    "without_prototype": "attention_refined",
    "attended_cam": "attended_cam_refined",
    "class_attention": "attention",
    "mctformer": "attended_cam_spread",
    "mctformer_refined": "attended_cam_refined",
    "cam_attention": "cam_spread",
}
"""Kinds of maps, old name -> new name; those that are not listed have kept their names."""
CNNS = ("resnet38", "efficientnet-lite0")
PROTOTYPES = ("global_embedding", "token_start", "global_scale", "pem")
_LOSSES = (
    "ccp",
    "cip",
    "p2p",
    "reduction",
    "cip_form",
    "p2p_pool",
    "p2p_threshold",
    "p2p_affine",
    "p2p_cross",
    "p2p_dense",
    "ramp",
)
OF_THE_RUN = ("workers", "checkpoint_every", "snapshots", "tensorboard")
GONE: dict[str, Any] = {
    "losses.classification": 1.0,
    "losses.tagged_only": False,
    "losses.p2p_dense_start": 0.25,
    "search.flip": True,
    "search.sharpness": 1.0,
    "train.brightness": 0.3,
    "affinity.radius": 5,
    "affinity.beta": 8.0,
    "affinity.steps": 32,
    "affinity.crf": "clip-es",
    "affinity.margin": 0.3,
    "affinity.train.weight_decay": 0.05,
    "affinity.train.clip_norm": 5.0,
    "affinity.train.flip": True,
    "affinity.train.brightness": 0.3,
    "masks.sharpness": 4.0,
    "segment.rounds": 1,
    "segment.weigh": True,
    "segment.unsure": 0.6,
    "segment.train.weight_decay": 0.05,
    "segment.train.clip_norm": 5.0,
    "segment.train.flip": True,
    "segment.train.brightness": 0.3,
}
"""Options that were removed, and the fixed value that is used now."""
INSTEAD = {"segment.rounds": "crossfit.folds = 2 makes masks by networks that did not learn them"}
"""What to do instead of options that were removed. What was made with another value can still be read, since only a training
depended on it."""
IGNORED = ("affinity.train.crop_area", "affinity.train.new_lr_scale", "segment.train.crop_area")
"""Options that were accepted and had no effect."""


def modern(values: Mapping[str, Any], origin: str, wanted: bool = False) -> dict[str, Any]:
    """A table of options of an earlier version, whole or in part, or one of today -> today's.

    wanted: whether a person asks for these options now. Otherwise they say how something finished was made. ConfigError, naming
    `origin`, for an option that was removed and had another value than the fixed one.
    """
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    found.pop("name", None)
    _whole_sections(found)
    _drop_gone(found, origin, wanted)
    for section in ("affinity", "segment"):
        train = found.get(section, {}).get("train") if isinstance(found.get(section), dict) else None
        if isinstance(train, dict):
            found[section]["train"] = {key: value for key, value in train.items() if key not in OF_THE_RUN}
    train = found.get("train")
    if isinstance(train, dict):
        found |= {key: train.pop(key) for key in OF_THE_RUN if key in train}
    _method(found)
    search = found.get("search")
    if isinstance(search, dict):
        _search(search, found)
    return {key: value for key, value in found.items() if value != {} or values.get(key) == {}}


def _drop_gone(found: dict[str, Any], origin: str, wanted: bool) -> None:
    for path in (*GONE, *IGNORED):
        *parents, name = path.split(".")
        table: Any = found
        for depth, parent in enumerate(parents):
            table = table.get(parent) if isinstance(table, dict) else None
            if isinstance(table, dict) and depth:
                continue
        if not isinstance(table, dict) or name not in table:
            continue
        value = table.pop(name)
        if path in GONE and value != GONE[path] and (wanted or path not in INSTEAD):
            instead = f"; {INSTEAD[path]}" if path in INSTEAD else ""
            raise ConfigError(
                f"{origin}: {path} is {value!r}, but this option was removed, and its value is always {GONE[path]!r}; "
                f"remove it{instead}"
            )


def _method(found: dict[str, Any]) -> None:
    """`model.method`, the prototypes' options, and `losses` -> `method` and the methods' tables."""
    model, losses = found.get("model"), found.get("losses")
    model = model if isinstance(model, dict) else {}
    if isinstance(losses, dict):
        del found["losses"]
    else:
        losses = {}  # anything else is reported where the options are checked
    old = model.pop("method", None)
    recam = model.pop("recam", False)
    cnn = model.get("backbone") in CNNS
    if old is None and recam:  # the method is set in another layer, and only a CNN's CAM had this option
        found["method"] = "recam"
    if old is not None and not isinstance(old, str):
        model["method"] = old  # reported where the options are checked
    if isinstance(old, str):
        found["method"] = {"cam": ("recam" if recam else "cnn-cam") if cnn else "vit-cam"}.get(old, old)
        cnns, vits = ("channels", "frozen_stages"), ("registers", "layer_scale", "drop_path", "weights_pixels", "patch_size")
        _not_of_the_choice(model, vits if cnn else cnns)
    prototypes = {key: model.pop(key) for key in PROTOTYPES if key in model} | {
        key: losses.pop(key) for key in _LOSSES if key in losses
    }
    tables: dict[str, dict[str, Any]] = {"mupvss": prototypes, "mctformer": {}, "recam": {}}
    if "attention_skip" in model:
        skip = model.pop("attention_skip")
        chosen = old or found.get("method")
        for name in ("mupvss", "mctformer"):
            if chosen in (None, name):  # if another layer sets the method, only that method's table will be read
                tables[name]["attention_skip"] = skip
    for key, table in (("token_contrast", "mctformer"), ("reactivation", "recam")):
        if key in losses:
            tables[table][key] = losses.pop(key)
    for name, moved in tables.items():
        if moved and isinstance(found.get(name, {}), dict):
            found[name] = found.get(name, {}) | moved
    if losses:
        found["losses"] = losses  # unknown options, which are reported as such


def _search(search: dict[str, Any], found: dict[str, Any]) -> None:
    own = {key: search.pop(key) for key in ("global_prototypes", "decision") if key in search}
    if own:
        table = found.setdefault("mupvss", {})
        if isinstance(table, dict) and isinstance(table.get("search", {}), dict):
            table["search"] = table.get("search", {}) | own
    if search.get("maps") == "default":
        search["maps"] = "own"
    elif isinstance(search.get("maps"), str):
        search["maps"] = MAPS.get(search["maps"], search["maps"])
    if isinstance(search.get("kinds"), list):
        search["kinds"] = [MAPS.get(kind, kind) if isinstance(kind, str) else kind for kind in search["kinds"]]


def _whole_sections(found: dict[str, Any]) -> None:
    """Drops options that a choice does not read. Files that 0.1.0 saved list them all; files that a person wrote do not."""
    sections = {name: found.get(name) for name in ("data", "affinity", "segment")}
    data, affinity, segment = ({} if not isinstance(section, dict) else section for section in sections.values())
    if {"crowd", "other_classes", "scenes", "masks"} <= data.keys():
        source = SOURCES.get(data.get("source", "scenes"))
        found["data"] = data if source is None else {key: value for key, value in data.items() if key in source.model_fields}
    if {"radius", "beta", "steps"} <= affinity.keys():
        if affinity.get("kind") == "none":
            found["affinity"] = {"kind": "none"}
        elif affinity.get("kind") == "head":
            _not_of_the_choice(affinity, ("channels", "weights"))
    if {"weigh", "unsure", "rounds"} <= segment.keys():
        _not_of_the_choice(segment, ("presence",) if segment.get("network") == "resnet38" else ("channels",))


def _not_of_the_choice(table: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        table.pop(name, None)
