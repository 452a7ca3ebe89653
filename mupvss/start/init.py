"""`mupvss init`: from a folder of pictures and their tags to a commented config and the commands to run."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from mupvss.config.load import load_config
from mupvss.data.folder import load_folder
from mupvss.data.sample import Dataset
from mupvss.data.summary import print_doubts, print_summary, seen_before
from mupvss.errors import DataError
from mupvss.files import write_text
from mupvss.model.pretrained import OWN
from mupvss.options import FolderData
from mupvss.start.backbones import BACKBONES, Word
from mupvss.start.estimate import measure, print_estimate

console = Console()
PREVIEW = 2000
"""Image steps after which rough masks are made."""
MIN_STEPS, FEW, EPOCHS, MAX_STEPS = 3200, 300, 8, 200_000
"""See `image_steps`."""


@dataclass(frozen=True)
class Wishes:
    """The user's choices for a new project."""

    pictures: Path
    tags: Path | None
    val_tags: Path | None
    """Tags of the validation set."""
    out: Path
    backbone: Word
    weights: str | None
    """None: the backbone's, from the hub."""
    force: bool
    quick: bool
    """Skip the measurement."""
    separator: str | None = None
    tag_columns: tuple[str, ...] = ()
    background: Literal["some", "none"] = "some"


def initialise(wishes: Wishes) -> None:
    """Writes the config and prints what was found, how long it will take, and what to type next."""
    if wishes.out.exists() and not wishes.force:
        raise DataError(f"{wishes.out}: already exists; give another --out, or replace it with --force")
    tags, val_tags = (None if path is None else _relative(path) for path in (wishes.tags, wishes.val_tags))
    data = FolderData(
        root=_relative(wishes.pictures),
        tags=tags,
        val_tags=val_tags,
        separator=wishes.separator,
        tag_columns=wishes.tag_columns,
        background=wishes.background,
    )
    dataset = load_folder(data, "train")
    val = None if val_tags is None else load_folder(data, "val")  # a table that cannot be read is reported now
    print_summary(dataset, console)
    if val is not None:
        print_doubts(seen_before(dataset, val), console)
    if wishes.background == "some":
        _ask_for_background(dataset)
    weights = BACKBONES[wishes.backbone].weights if wishes.weights is None else wishes.weights
    steps = image_steps(len(dataset.samples))
    write_text(wishes.out, config_text(wishes.out.stem, data, dataset, wishes.backbone, weights, steps))
    config = load_config(wishes.out)  # makes sure that the written config can be read
    console.print(f"\nwrote {wishes.out}", highlight=False, soft_wrap=True)
    if not wishes.quick:
        try:
            print_estimate(measure(config, dataset), console)
        except DataError as error:  # the config is written, and a bad picture is reported again by the check before training
            print_doubts([f"the time could not be estimated: {error}"], console)
    _tell_weights(weights)
    _tell_next(wishes.out, data.root)


SEVERAL, UNTAGGED = 2.0, 0.02
"""From this number of tags per tagged picture, and with fewer untagged pictures than this share, there may be no background."""


def _ask_for_background(dataset: Dataset) -> None:
    """Pictures of land or tissue have several tags each, and none has no tag."""
    counts = [len(sample.tags) for sample in dataset.samples]
    tagged = [count for count in counts if count]
    if tagged and sum(tagged) >= SEVERAL * len(tagged) and len(tagged) >= (1 - UNTAGGED) * len(counts):
        console.print(
            "? does every pixel belong to one of its picture's tags, as in land cover, tissue or whole scenes? Then give\n"
            "  --background none (data.background); otherwise part of each picture becomes background",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def image_steps(pictures: int) -> int:
    """FEW times the root of the number of pictures, so that fewer pictures are seen more often; with many pictures EPOCHS epochs.
    6,300 for 437 pictures, 11,200 for 1,400, 40,000 for 5,000."""
    wanted = max(FEW * pictures**0.5, EPOCHS * pictures)
    return min(MAX_STEPS, max(MIN_STEPS, 100 * round(wanted / 100)))


def _relative(path: Path) -> Path:
    """The path as the user would write it from the current folder."""
    return Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _tell_weights(weights: str) -> None:
    if not weights:
        console.print("\nno pretrained weights: expect poor masks of real pictures")
    elif weights in {known.weights for known in BACKBONES.values()} and not _is_cached(weights):
        console.print(
            f"\npretrained weights come from the Hugging Face hub at the first training ({weights}). Without internet: fetch\n"
            f"https://huggingface.co/{weights}/resolve/main/model.safetensors elsewhere, and set model.weights to the file.",
            highlight=False,
            soft_wrap=True,
        )


def _is_cached(weights: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(weights, "model.safetensors"), str)


def _tell_next(path: Path, pictures: Path) -> None:
    out = f"runs/{path.stem}"
    commands = (
        ("data", "check", path),
        ("run", path),
        ("predict", out, pictures, "--out", f"{out}/predict"),
        ("data", "doctor", out),
        ("studio", out),
    )
    console.print(
        "\nnext:",
        *(f"  mupvss {shlex.join(map(str, command))}" for command in commands),
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )


def config_text(name: str, data: FolderData, dataset: Dataset, backbone: Word, weights: str, steps: int) -> str:
    """The config as TOML; every value is the user's own or backed by our measurements. Without weights: those of the drawn
    scenes."""
    drawn = weights in ("", OWN)
    plain = data.background == "none" and not drawn
    settings = _small(weights == OWN) if drawn else _pretrained(backbone, weights, steps, plain)
    return f"""# {len(dataset.samples)} own pictures. Every option: mupvss run {name}.toml --help-all
{PLAIN if plain else BESIDE}{_preview(weights)}
[data]
source = "folder"
root = {_text(data.root.as_posix())}
{_tags(data)}{_reading(data)}
classes = [{", ".join(_text(c) for c in dataset.classes)}]           # in order of the class ids 1, 2, ...
{_background(data)}# unreadable = "skip"             # go on without pictures that cannot be read; "stop" lists them
# masks = "folder of palette PNGs"   # if some pictures have true masks: what is found is scored against them

{settings}"""


def _preview(weights: str) -> str:
    if weights in ("", OWN):
        return ""
    return f"preview = {PREVIEW}                   # rough masks after this number of pictures seen; 0: none\n"


def _tags(data: FolderData) -> str:
    tags = f"tags = {_text(data.tags.as_posix())}" if data.tags else "# tags: one folder per tag"
    if data.val_tags is None:
        return f'{tags}\n# val_tags = "val.csv"            # pictures kept back, to try the segmentation network on'
    return f"{tags}\nval_tags = {_text(data.val_tags.as_posix())}            # kept back, to try the segmentation network on"


def _reading(data: FolderData) -> str:
    lines = [] if data.separator is None else [f"separator = {_text(data.separator)}"]
    lines += [f"tag_columns = [{', '.join(map(_text, data.tag_columns))}]"] if data.tag_columns else []
    return "".join(f"\n{line}" for line in lines)


def _background(data: FolderData) -> str:
    if data.background == "none":
        return 'background = "none"             # every pixel belongs to one of its picture\'s tags\n'
    return '# background = "none"           # if every pixel belongs to one of its picture\'s tags (land cover, tissue, scenes)\n'


MIDDLE = 'threshold = "middle"             # how it is chosen what is object; "otsu": from one histogram, as earlier runs did\n'


BESIDE = "baseline = false                 # true: train a plain CAM beside it, to compare\n"
PLAIN = 'method = "vit-cam"               # a plain CAM: without background its maps are better (docs/domains.md)\n'
SIZE = "size = 432                       # scale 1 means an area of this number squared, in pixels, for pictures of any size\n"
CENTRES = f"""\
maps = "attended_centres_refined"   # every picture is searched for what was found in all pictures with its tags
kinds = ["attended_centres_refined", "attended_cam_refined"]   # without this line all eleven kinds are made and compared
{MIDDLE}"""
CROSSFIT = """
[crossfit]
# folds = 2                      # masks by networks that had not learned them: 8 points better on six animals, two thirds longer
"""
CAM = """maps = "cam_refined"             # class activation maps, refined along similar patches and the picture's edges
kinds = ["cam_refined"]          # the maps that are made; without this line all three kinds are made and compared
"""


def _pretrained(word: Word, weights: str, steps: int, plain: bool) -> str:
    """plain: the method is a plain CAM."""
    known, search = BACKBONES[word], (CAM if plain else CENTRES) + SIZE
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in known.settings.items())
    pooled = (
        "" if known.flattens or plain else '\n[mupvss]\nglobal_embedding = "pool"       # for patches of other sizes than 16\n'
    )
    return f"""[model]
backbone = {_text(known.size)}                # tiny: fast; small: larger, about four times the time
weights = {_text(weights)}    # hub name, path or URL
{settings}{pooled}
[train]
image_steps = {steps}              # pictures seen in all; more help up to a point
batch_size = 16                  # with so few image steps, twice as many small steps learn more

[search]
{search}scales = [0.5, 0.75, 1.0]        # the picture is searched at these scales; larger objects like smaller scales

[affinity]
kind = "head"                    # learned from the seeds, masks end at edges; "none" saves a quarter of the time

[masks]
margin = 0.25                    # larger: more pixels become 255 (unsure), which the segmentation network ignores
crf_pixels = 100000              # masks are drawn at this size at most and then enlarged; more: finer edges, slower
{"" if plain else CROSSFIT}
[segment.train]
image_steps = {steps}
batch_size = 16
"""


NEW = """
[mupvss.pem]
blocks = "late"

[train]
image_steps = 20000              # pictures seen in all
lr = 2e-3
warmup_steps = 100
"""
DRAWN = """
[train]
image_steps = 4800               # pictures seen in all
batch_size = 16
lr = 2e-3
new_lr_scale = 4.0
warmup_steps = 20
"""


def _small(drawn: bool) -> str:
    """drawn: start from the weights that learned on drawings, instead of from scratch."""
    weights = 'weights = "package:drawn"        # learned on drawn things; brings photographs nothing\n' if drawn else ""
    decoder = 'decoder = "package:drawn"\n' if drawn else ""
    return f"""[model]
backbone = "micro"               # small enough to learn without pretrained weights; of photographs it learns little
{weights}patch_size = 8
image_size = 96
drop_path = 0.0
gwrp_decay = 0.98
{DRAWN if drawn else NEW}clip_norm = 1.0
crop_area = [0.7, 1.0]

[search]
kinds = ["attended_search_refined"]   # the maps that become masks; without this line all eleven kinds are made and compared
{MIDDLE}scales = [1.0]
affinity = ["patch"]
gamma = 0.2
pixel_steps = 45                 # larger: maps spread further over even colours
pixel_distances = [1, 2, 4, 8, 16]
canvas_stride = 1

[affinity]
kind = "none"                    # "head" needs pretrained weights: on this backbone it ruins the masks

[masks]
crf = "irn"
margin = 0.25                    # larger: more pixels become 255 (unsure), which the segmentation network ignores

[segment]
{decoder}size = 128
crop = 96
resize = [0.8, 1.25]
scales = [1.0]
crf = "none"

[segment.train]
image_steps = 4800
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
