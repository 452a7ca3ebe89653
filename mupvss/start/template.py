"""The commented config that `mupvss init` writes."""

from __future__ import annotations

import json

from mupvss.config.schema import DataConfig
from mupvss.data.sample import Dataset


def config_text(name: str, data: DataConfig, dataset: Dataset, backbone: str, weights: str, steps: int) -> str:
    """TOML; every value is one that the measurements on real pictures stand for, or the user's own."""
    tags = f"tags = {_text(data.tags.as_posix())}\n" if data.tags else "# tags: one folder per tag\n"
    classes = ", ".join(_text(c) for c in dataset.classes)
    return f"""# {len(dataset.samples)} own pictures. Every option: mupvss run {name}.toml --help
name = {_text(name)}
baseline = false                 # true: train a plain CAM beside it, to compare

[data]
source = "folder"
root = {_text(data.root.as_posix())}
{tags}classes = [{classes}]           # in order of the class ids 1, 2, ...

[model]
backbone = {_text(backbone)}                # tiny: fast; small: better masks, about four times the time
weights = {_text(weights)}    # hub name, path or URL of an ImageNet ViT

[model.pem]
blocks = "late"

[train]
image_steps = {steps}              # pictures seen in all; more help up to a point

[search]
scales = [0.5, 0.75, 1.0]        # the picture is searched at these sizes; larger objects like smaller scales
precision = "bf16"

[affinity]
{_affinity(weights)}

[masks]
margin = 0.25                    # larger: more pixels become 255 (unsure), which the segmentation network ignores

[segment.train]
image_steps = {steps}
"""


def _affinity(weights: str) -> str:
    """Blocks without pretrained weights know too little of what belongs together: a head on them ruins the masks."""
    if weights:
        return 'kind = "head"                    # learned from the seeds, masks end at edges; "none" saves a quarter of the time'
    return 'kind = "none"                    # "head" draws masks to edges, but needs pretrained weights'


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
