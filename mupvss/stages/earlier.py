"""Recognises stages that version 0.1.0 finished. It made fingerprints in another way, and its maps had other names.

A folder is reused if its fingerprint is the one that 0.1.0 gave to the config in it and the pictures as they are now, and if
that config says what is asked for today. Nothing is computed again then, and the maps get today's names.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mupvss.config.load import build
from mupvss.data.sample import Dataset
from mupvss.data.walk import MARKER, marker_of
from mupvss.errors import UserError
from mupvss.files import read_json, write_json
from mupvss.methods.earlier import MAPS, OF_THE_RUN, PROTOTYPES, modern
from mupvss.model.pretrained import weights_identity
from mupvss.runtime.log import console
from mupvss.stages.run_folder import Run, Stage, dataset_identity, known_by, masks_of, stage_fingerprint
from mupvss.stages.seeds import per_class

VERSION = "0.1.0"
TRAIN: dict[str, Any] = {
    "image_steps": 25000,
    "batch_size": 32,
    "lr": 0.0001,
    "new_lr_scale": 5.0,
    "weight_decay": 0.05,
    "warmup_steps": 50,
    "clip_norm": 5.0,
    "precision": "bf16",
    "crop_area": [0.3, 1.0],
    "flip": True,
    "brightness": 0.3,
    "workers": None,
    "checkpoint_every": 100,
    "snapshots": 0,
    "tensorboard": False,
}
DEFAULTS: dict[str, Any] = {
    "model": {
        "method": "mupvss",
        "backbone": "tiny",
        "patch_size": 16,
        "registers": 0,
        "layer_scale": False,
        "channels": 1.0,
        "frozen_stages": 0,
        "recam": False,
        "attention_skip": 0.25,
        "image_size": 224,
        "weights": None,
        "weights_pixels": "imagenet",
        "global_embedding": "flatten",
        "token_start": "class_token",
        "global_scale": 0.1,
        "pem": {"blocks": "all", "logits": "cosine", "temperature": 0.1, "threshold": 0.0, "gate": "learned", "enriched": "both"},
        "gwrp_decay": 0.995,
        "gwrp_patches": 784,
        "drop_path": 0.1,
    },
    "losses": {
        "classification": 1.0,
        "ccp": 0.1,
        "cip": 0.1,
        "p2p": 1.0,
        "token_contrast": 0.0,
        "reactivation": 0.0,
        "reduction": "mean",
        "cip_form": "shifted",
        "tagged_only": False,
        "p2p_pool": "gwrp",
        "p2p_threshold": None,
        "p2p_affine": True,
        "p2p_cross": 0.5,
        "p2p_dense": 0.0,
        "p2p_dense_start": 0.25,
        "ramp": 0.5,
    },
    "train": TRAIN,
    "search": {
        "scales": [1.0],
        "flip": True,
        "maps": "default",
        "kinds": [],
        "global_prototypes": True,
        "decision": "learned",
        "sharpness": 1.0,
        "affinity": ["attention", "patch"],
        "affinity_power": 6.0,
        "pixel_steps": 10,
        "pixel_distances": [1, 2, 4, 8],
        "gamma": 1.0,
        "canvas_stride": 4,
        "precision": "fp32",
    },
    "affinity": {
        "kind": "none",
        "radius": 5,
        "beta": 8.0,
        "steps": 32,
        "crf": "clip-es",
        "margin": 0.3,
        "channels": 1.0,
        "weights": None,
        "crop": 224,
        "train": {**TRAIN, "image_steps": 3200, "batch_size": 8, "lr": 0.001, "new_lr_scale": 1.0, "warmup_steps": 20},
    },
    "masks": {"crf": "clip-es", "sharpness": 4.0, "crf_steps": 10, "margin": 0.25},
    "segment": {
        "network": "vit",
        "channels": 1.0,
        "weights": None,
        "size": 320,
        "crop": 224,
        "resize": [0.6, 1.4],
        "presence": 1.0,
        "weigh": True,
        "rounds": 1,
        "unsure": 0.6,
        "scales": [0.75, 1.0, 1.25],
        "crf": "mctformer-test",
        "train": {**TRAIN, "image_steps": 12800, "batch_size": 16, "lr": 0.0002},
    },
}
"""Defaults of every section of 0.1.0 whose options were part of a fingerprint. Options at their defaults were left out of it."""
NESTED: dict[str, Any] = {"train": TRAIN, "pem": DEFAULTS["model"]["pem"]}
UNREAD = {
    "mupvss": (("recam",), ("token_contrast", "reactivation")),
    "mctformer": ((*PROTOTYPES, "recam"), ("reactivation",)),
    "cam": ((*PROTOTYPES, "attention_skip"), ("token_contrast",)),
}
"""By method: options of the model, and losses, that it did not read. All but mupvss did not read OF_PROTOTYPES either."""
OF_PROTOTYPES = tuple(name for name in DEFAULTS["losses"] if name not in ("classification", "token_contrast", "reactivation"))


def take_over(stage: Stage, run: Run, dataset: Dataset, known: str, truth: str, folder: Path | None = None) -> bool:
    """Takes over a folder that holds this stage's result by 0.1.0, and brings its marker and its maps up to date; -> whether it
    did. truth: today's identity of the masks that score it. folder: by default that of the stage."""
    folder = folder or run.folder(stage.name)
    marker = marker_of(folder)
    # A stage that was taken over before may have to be recognised again: those it builds on may have been taken over since.
    again = "earlier" in marker
    made = marker.get("earlier", marker.get("fingerprint"))
    if ("inputs" in marker and not again) or marker.get("fingerprint") == known:
        return False
    if not {"config.toml", "metrics.json"} <= {path.name for path in folder.glob("*")}:
        return False
    old = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    before = [earlier_fingerprint(run.folder(name)) for name in (*stage.after, "train", "seeds")]
    try:
        if stage_identity(stage.name, old, dataset, dict(zip((*stage.after, "train", "seeds"), before, strict=True))) != made:
            return False
        asked = build(modern(old, str(folder / "config.toml")), str(folder / "config.toml"), trusted=False)
    except UserError:
        return False  # it has options that were removed, so the result is another one, which is made again
    after = [stage_fingerprint(run.folder(name)) for name in stage.after]
    if known_by(stage, asked, dataset, after) != known:
        return False
    scored = marker.get("truth", "")
    same_truth = not stage.scores or scored in ("", truth if again else truth_identity(old, dataset))
    _renew(stage, run, folder)
    content = {"fingerprint": known, "truth": truth if same_truth else "", "revision": stage.revision, "inputs": {}}
    content["after"] = dict(zip(stage.after, after, strict=True))
    write_json(folder / MARKER, content | {"version": VERSION, "earlier": made})
    console.print(f"{stage.name}: taken over from version {VERSION}", highlight=False)
    return True


def earlier_fingerprint(folder: Path) -> str:
    """The fingerprint that 0.1.0 gave to a finished stage; empty if 0.1.0 did not make it."""
    marker = marker_of(folder)
    if not (folder / "metrics.json").is_file():
        return ""
    return str(marker.get("earlier", "" if "inputs" in marker else marker.get("fingerprint", "")))


def _renew(stage: Stage, run: Run, folder: Path) -> None:
    """Renames maps/KIND and the kinds in the figures, and adds what these lack; safe to repeat if it was stopped."""
    for old, new in MAPS.items():
        place = folder / "maps" / old
        if place.is_dir() and not (folder / "maps" / new).exists():
            place.rename(folder / "maps" / new)
    kinds = folder / "kinds.json"
    if kinds.is_file():
        write_json(kinds, {MAPS.get(kind, kind): value for kind, value in read_json(kinds).items()})
    metrics = read_json(folder / "metrics.json")
    if stage.name == "seeds":
        metrics = renamed_figures(metrics)
        metrics["maps"] = MAPS.get(metrics["maps"], metrics["maps"])
        scored = folder.with_name("evaluate") / "metrics.json"  # a separate stage in 0.1.0
        found = read_json(scored) if scored.is_file() else {}
        if "recall" in found:
            metrics |= {"pictures": found["pictures"], **per_class(found)}
    elif stage.name == "val" and getattr(stage.inputs(run.config), "learned", False):
        metrics["learned"] = True
    elif stage.name == "cam":
        metrics = {key.replace("attention_", "spread_"): value for key, value in metrics.items()}
    write_json(folder / "metrics.json", metrics)


def renamed_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """KIND_miou and KIND_oracle under today's names of the kinds."""
    names = {f"{old}_{what}": f"{new}_{what}" for old, new in MAPS.items() for what in ("miou", "oracle")}
    return {names.get(key, key): value for key, value in metrics.items()}


def stage_identity(name: str, values: Mapping[str, Any], dataset: Dataset, upstream: Mapping[str, str]) -> str:
    """The fingerprint that 0.1.0 gave to a stage. values: its config, whole or only what differs from the defaults; upstream: the
    fingerprints of the stages it built on."""
    pictures, seed = dataset_identity(dataset), values.get("seed", 0)
    section = {part: _plain(values.get(part, {}), DEFAULTS[part]) for part in ("search", "affinity", "masks", "segment")}
    parts: dict[str, Sequence[Any]] = {
        "train": (),
        "cam_train": (),
        "seeds": ("seeds", upstream.get("train", ""), section["search"], pictures),
        "cam": ("cam", upstream.get("cam_train", ""), section["search"], pictures),
        "affinity": (
            "affinity", 2, [upstream.get("train", ""), upstream.get("seeds", "")], section["affinity"],
            values.get("masks", {}).get("sharpness", 4.0), seed, pictures,
        ),
        "masks": (
            "masks", [upstream.get(part, "") for part in ("train", "seeds", "affinity")], section["affinity"], section["masks"],
            pictures,
        ),
        "segment": ("segment", 3, [upstream.get("train", ""), upstream.get("masks", "")], section["segment"], seed, pictures),
        "val": ("val", upstream.get("segment", ""), section["segment"], values.get("data", {}).get("val_split", "val"), pictures),
    }  # fmt: skip
    if name in ("train", "cam_train"):
        return training_identity(values, dataset, "cam" if name == "cam_train" else None)
    return _hash(*parts[name]) if name in parts else ""


def training_identity(values: Mapping[str, Any], dataset: Dataset, method: str | None = None) -> str:
    model = {**values.get("model", {}), **({} if method is None else {"method": method})}
    losses = dict(values.get("losses", {}))
    chosen = model.get("method", "mupvss")
    unread, unread_losses = UNREAD[chosen]
    model = {key: value for key, value in model.items() if key not in unread}
    if chosen != "mupvss":
        unread_losses = (*unread_losses, *OF_PROTOTYPES)
    losses = {key: value for key, value in losses.items() if key not in unread_losses}
    sections = (
        _plain(model, DEFAULTS["model"]),
        _plain(losses, DEFAULTS["losses"]),
        _plain(values.get("train", {}), DEFAULTS["train"]),
    )
    return _hash("train", *sections, values.get("seed", 0), dataset_identity(dataset))


def truth_identity(values: Mapping[str, Any], dataset: Dataset) -> str:
    data = values.get("data", {})
    return _hash(data.get("other_classes", "background"), data.get("crowd", "ignore"), masks_of(dataset))


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True).encode()).hexdigest()


def _plain(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults, without those that have no effect; weights are known by their content."""
    found: dict[str, Any] = {}
    for name, default in usual.items():
        value = _typed(values.get(name, default), default)
        if name in OF_THE_RUN:
            continue
        if isinstance(default, dict):
            # Where a table was given in part, the rest had the defaults of its class, not those of its place.
            whole = {**NESTED[name], **value} if name in values else default
            if _plain(whole, NESTED[name]) != _plain(default, NESTED[name]):
                found[name] = _plain(whole, NESTED[name])
        elif value != default and value is not None:
            found[name] = weights_identity(value) if name == "weights" and value else value
    return found


def _typed(value: Any, default: Any) -> Any:
    """Turns an integer into a float where a float is expected, since a person may write 1 for 1.0."""
    return float(value) if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool) else value
