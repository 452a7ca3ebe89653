"""Draws the figures of the documentation with the product itself, on its own scenes.

python docs/draw_figures.py RUN     (a finished run of configs/scenes.toml) -> docs/figures/*
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from mupvss.config.load import load_config
from mupvss.config.run import RunConfig
from mupvss.data.preprocess import normalise
from mupvss.data.sample import Dataset, Sample
from mupvss.data.sources import load_dataset
from mupvss.files import save_image, write_text
from mupvss.losses.ccp_loss import ccp
from mupvss.losses.cip_loss import cip
from mupvss.masks.pseudo import pseudo_mask
from mupvss.model.features import Features
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.report.pictures import grid, heat, overlay
from mupvss.report.plot import Series, plot
from mupvss.search.multiscale import stretch
from mupvss.search.spatial_search import prototype_map

FIGURES = Path(__file__).parent / "figures"
SCENES = (3, 8, 21)
KINDS = {
    "attention": "class attention",
    "search": "prototype search",
    "search_refined": "+ affinity",
    "attended_search_refined": "× attention",
}
NEIGHBOURS, PER_CLASS = 4, 8


def search_figure(predictor: Predictor, dataset: Dataset, config: RunConfig) -> Image.Image:
    """One scene per row, from attention to the pseudo-mask."""
    rows = []
    for number in SCENES:
        sample = dataset.samples[number]
        image, tag = sample.open_image(), sorted(sample.tags)[0]
        all_tags = [i for i, name in enumerate(dataset.classes) if name in sample.tags]
        found = predictor.search(image, [dataset.classes.index(tag)], list(KINDS))
        whole = predictor.search(image, all_tags, ["attended_search_refined"])["attended_search_refined"]
        mask = pseudo_mask(whole, np.asarray(image), predictor.threshold or 0.5, config.masks)[0].labels()
        truth = sample.open_mask() if sample.open_mask is not None else np.zeros_like(mask)
        maps = [heat(image, found[kind].full()[0]) for kind in KINDS]
        rows.append((tag, [image, *maps, overlay(image, mask), overlay(image, truth)]))
    return grid(["picture", *KINDS.values(), "pseudo-mask", "truth"], rows)


def neighbours_figure(predictor: Predictor, dataset: Dataset) -> Image.Image:
    """Every picture searched with every picture's prototype of one class: rows say whose prototype it is."""
    tag = sorted(dataset.samples[SCENES[0]].tags)[0]
    index = dataset.classes.index(tag)
    chosen = [sample for sample in dataset.samples if tag in sample.tags][:NEIGHBOURS]
    images = [sample.open_image() for sample in chosen]
    features = [forward(predictor, sample) for sample in chosen]
    rows = [("", images)]
    for number, source in enumerate(features, 1):
        assert source.prototypes is not None
        token = source.prototypes[:, index : index + 1]
        maps = [prototype_map(f.patches, token)[0].unflatten(-1, f.grid) for f in features]
        rows.append((f"prototype of {number}", [shown(image, found) for image, found in zip(images, maps, strict=True)]))
    return grid([f"{tag} {number}" for number in range(1, len(chosen) + 1)], rows)


def shown(image: Image.Image, square: torch.Tensor) -> Image.Image:
    """A map (1, h, w) of patches over its picture."""
    large = F.interpolate(square.unsqueeze(0), size=(image.height, image.width), mode="bilinear")[0]
    return heat(image, stretch(large)[0].numpy())


@torch.no_grad()
def forward(predictor: Predictor, sample: Sample) -> Features:
    side = predictor.info.model.image_size
    return predictor.network(normalise(sample.open_image().resize((side, side))).unsqueeze(0).to(predictor.device))


def cosines_figure(predictor: Predictor, dataset: Dataset, cell: int = 9) -> Image.Image:
    """Cosines between the prototypes of the classes that pictures are tagged with, ordered by class."""
    tokens: list[torch.Tensor] = []
    begins = []
    for index, name in enumerate(dataset.classes):
        begins.append(len(tokens))
        for sample in [sample for sample in dataset.samples if name in sample.tags][:PER_CLASS]:
            prototypes = forward(predictor, sample).prototypes
            assert prototypes is not None
            tokens.append(F.normalize(prototypes[0, index].float(), dim=0))
    stacked = torch.stack(tokens)
    cosines = (stacked @ stacked.T).numpy()
    side = cell * len(tokens)
    font = ImageFont.load_default(13)
    left = 8 + max(int(font.getlength(name)) for name in dataset.classes)
    canvas = Image.new("RGB", (left + side + 8, side + 34), (251, 250, 248))
    field = heat(Image.new("RGB", cosines.shape), cosines).resize((side, side), Image.Resampling.NEAREST)
    canvas.paste(field, (left, 8))
    draw = ImageDraw.Draw(canvas)
    for name, begin, end in zip(dataset.classes, begins, [*begins[1:], len(tokens)], strict=True):
        draw.text((4, 8 + cell * (begin + end) / 2 - 8), name, (28, 28, 30), font)
    draw.text((left, side + 12), "dark: cosine 0 or less, bright: 1", (28, 28, 30), font)
    return canvas


STYLE = """<style>text { font: 13px system-ui, sans-serif; fill: #1c1c1e } .axis { stroke: #8a8a8e; fill: none }
polyline { fill: none; stroke-width: 2 } svg { background: #ffffff }</style>"""


def losses_diagram() -> str:
    """CCP and both forms of CIP for two prototypes at a given cosine."""
    cosines = [k / 50 for k in range(-49, 50)]

    def pair(cosine: float) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])

    series = [
        Series("CCP, other class", [(c, ccp(pair(c)).item()) for c in cosines]),
        Series("CIP, other picture", [(c, cip(pair(c).unsqueeze(1)).item()) for c in cosines]),
        Series("CIP, as printed", [(c, cip(pair(c).unsqueeze(1), form="literal").item()) for c in cosines if c > -0.1]),
    ]
    drawn = plot(series, "cosine of two prototypes", "loss", (-1, 6))
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{STYLE}", 1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    predictor = load_classifier(run, "cpu")
    config = load_config(run / "train" / "config.toml")
    dataset = load_dataset(config.data, "seeds")
    save_image(FIGURES / "search.jpg", search_figure(predictor, dataset, config), quality=88)
    save_image(FIGURES / "neighbours.jpg", neighbours_figure(predictor, dataset), quality=88)
    save_image(FIGURES / "cosines.png", cosines_figure(predictor, dataset))
    write_text(FIGURES / "losses.svg", losses_diagram())


if __name__ == "__main__":
    main()
