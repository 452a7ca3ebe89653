"""The commented config that `mupvss init` writes."""

from __future__ import annotations

import json

from mupvss.config.schema import DataConfig
from mupvss.data.sample import Dataset


def config_text(name: str, data: DataConfig, dataset: Dataset, backbone: str, weights: str, steps: int) -> str:
    """TOML; every value is one that our measurements stand for, or the user's own. Without weights: those of the drawn scenes."""
    settings = _pretrained(backbone, weights, steps) if weights else _from_scratch()
    return f"""# {len(dataset.samples)} own pictures. Every option: mupvss run {name}.toml --help
name = {_text(name)}
baseline = false                 # true: train a plain CAM beside it, to compare

[data]
source = "folder"
root = {_text(data.root.as_posix())}
{_tags(data)}
classes = [{", ".join(_text(c) for c in dataset.classes)}]           # in order of the class ids 1, 2, ...
# masks = "folder of palette PNGs"   # if some pictures have true masks: what is found is scored against them

{settings}"""


def _tags(data: DataConfig) -> str:
    tags = f"tags = {_text(data.tags.as_posix())}" if data.tags else "# tags: one folder per tag"
    if data.val_tags is None:
        return f'{tags}\n# val_tags = "val.csv"            # pictures kept back, to try the segmentation network on'
    return f"{tags}\nval_tags = {_text(data.val_tags.as_posix())}            # kept back, to try the segmentation network on"


def _pretrained(backbone: str, weights: str, steps: int) -> str:
    return f"""[model]
backbone = {_text(backbone)}                # tiny: fast; small: better masks, about four times the time
weights = {_text(weights)}    # hub name, path or URL of an ImageNet ViT with patches of 16

[model.pem]
blocks = "none"                  # "late": the paper's Prototype Embedding Module, which gained nothing where we measured

[train]
image_steps = {steps}              # pictures seen in all; more help up to a point

[search]
scales = [0.5, 0.75, 1.0]        # the picture is searched at these sizes; larger objects like smaller scales
precision = "bf16"
# maps = "with_classifier"       # the search and the classifier together: seeds 1.5 points better on six animals of VOC

[affinity]
kind = "head"                    # learned from the seeds, masks end at edges; "none" saves a quarter of the time

[masks]
margin = 0.25                    # larger: more pixels become 255 (unsure), which the segmentation network ignores

[segment.train]
image_steps = {steps}
"""


def _from_scratch() -> str:
    return """[model]
backbone = "micro"               # small enough to learn without pretrained weights; of photographs it learns little
patch_size = 8
image_size = 96
drop_path = 0.0
gwrp_decay = 0.98

[model.pem]
blocks = "late"

[train]
image_steps = 20000              # pictures seen in all
lr = 2e-3
warmup_steps = 100
clip_norm = 1.0
crop_area = [0.7, 1.0]

[search]
affinity = ["patch"]
gamma = 0.2
pixel_steps = 45                 # larger: maps spread further over even colours
pixel_distances = [1, 2, 4, 8, 16]
canvas_stride = 1
precision = "bf16"

[affinity]
kind = "none"                    # "head" needs pretrained weights: on this backbone it ruins the masks

[masks]
crf = "irn"
margin = 0.25                    # larger: more pixels become 255 (unsure), which the segmentation network ignores

[segment]
size = 128
crop = 96
resize = [0.8, 1.25]
scales = [1.0]
crf = "none"

[segment.train]
image_steps = 4800
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
