"""Diagrams that need no trained network: the way through the network, and the two prototype losses against the cosine."""

from __future__ import annotations

from html import escape

import torch

from mupvss.losses.ccp_loss import ccp
from mupvss.losses.cip_loss import cip
from mupvss.report.plot import Series, plot

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1c1c1e } .small { font-size: 11px; fill: #55555a }
.box { fill: #fbfaf8; stroke: #1c1c1e; stroke-width: 1.2; rx: 5px } .learned { fill: #fdebd9 } .loss { fill: #dcecf7 }
.flow { stroke: #1c1c1e; stroke-width: 1.3; fill: none; marker-end: url(#tip) } .axis { stroke: #8a8a8e; fill: none }
polyline { fill: none; stroke-width: 2 } .paper { fill: #ffffff }
</style>"""
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z"/></marker></defs>'
)


def standalone(width: int, height: int, body: str, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f'{STYLE}{TIP}<rect class="paper" width="{width}" height="{height}"/>{body}</svg>\n'
    )


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
    inner = drawn[drawn.index(">") + 1 : -len("</svg>")]
    return standalone(640, 340, inner, "The prototype losses against the cosine")


def box(x: int, y: int, width: int, height: int, lines: list[str], kind: str = "") -> str:
    """The first line in the usual size, the rest small."""
    top = y + height / 2 - 7 * (len(lines) - 1) + 4
    words = "".join(
        f'<text class="{"small" if n else ""}" x="{x + width / 2}" y="{top + 15 * n}" text-anchor="middle">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    return f'<rect class="box {kind}" x="{x}" y="{y}" width="{width}" height="{height}"/>{words}'


def flow(path: str) -> str:
    return f'<path class="flow" d="{path}"/>'


BLOCKS = ["ViT blocks", "self-attention over", "N + C tokens, then PEM:", "patches and prototypes", "exchange by cosine"]


def network_diagram() -> str:
    """From a picture to its maps: what is learned in orange, what is a loss in blue."""
    parts = [
        box(10, 96, 92, 48, ["picture", "H × W × 3"]),
        box(140, 30, 150, 52, ["patch embedding", "N patches, width D"], "learned"),
        box(140, 158, 150, 52, ["global embedding", "one token per class"], "learned"),
        box(330, 60, 150, 120, BLOCKS, "learned"),
        box(520, 30, 130, 52, ["patches F", "N × D"]),
        box(520, 158, 130, 52, ["prototypes P", "C × D, one per class"]),
        box(690, 94, 140, 52, ["spatial search", "cos(F, P), scaled"]),
        box(690, 10, 140, 52, ["affinity", "attention, patches,", "pixels"]),
        box(870, 94, 110, 52, ["maps", "one per tag"]),
        box(330, 240, 150, 44, ["CLS", "tags, on F and on P"], "loss"),
        box(520, 240, 130, 44, ["CCP, CIP", "apart, and alike"], "loss"),
        box(690, 240, 140, 44, ["P2P", "found where tagged"], "loss"),
        flow("M102,112C120,112 120,56 138,56"),
        flow("M102,128C120,128 120,184 138,184"),
        flow("M290,56C310,56 310,100 328,100"),
        flow("M290,184C310,184 310,140 328,140"),
        flow("M480,100C500,100 500,56 518,56"),
        flow("M480,140C500,140 500,184 518,184"),
        flow("M650,56C672,56 672,112 688,112"),
        flow("M650,184C672,184 672,128 688,128"),
        flow("M760,94V64"),
        flow("M830,36C862,36 850,112 868,112"),
        flow("M585,210V238"),
        flow("M760,146V238"),
        flow("M405,180V238"),
    ]  # fmt: skip
    return standalone(990, 296, "".join(parts), "The network: patches and prototypes through the same blocks, then the search")


def stages_diagram() -> str:
    """The folders of a run and what each reads of the others."""
    parts = [
        box(10, 60, 130, 60, ["train", "model.safetensors", "log.jsonl"], "learned"),
        box(176, 60, 130, 60, ["seeds", "maps/KIND/*.npz", "masks/*.png"]),
        box(342, 60, 130, 60, ["affinity", "model.safetensors", "labels/*.png"], "learned"),
        box(508, 60, 130, 60, ["masks", "full, labels,", "confidence/*.png"]),
        box(674, 60, 130, 60, ["segment", "model.safetensors", "log.jsonl"], "learned"),
        box(840, 60, 130, 60, ["val", "masks/*.png"]),
        box(176, 180, 130, 44, ["evaluate", "table of figures"], "loss"),
        box(10, 180, 130, 44, ["cam_train, cam", "a plain CAM beside"], "learned"),
        box(508, 180, 462, 44, ["report", "index.html: figures, pictures, curves of every stage"], "loss"),
        flow("M140,90H174"),
        flow("M306,90H340"),
        flow("M472,90H506"),
        flow("M638,90H672"),
        flow("M804,90H838"),
        flow("M241,120V178"),
        flow("M75,60C75,10 739,10 739,58"),
        flow("M241,60C241,26 573,26 573,58"),
    ]
    return standalone(
        980, 236, "".join(parts), "The stages of a run: train, seeds, affinity, masks, segment, val, and beside them"
    )


if __name__ == "__main__":
    raise SystemExit("run docs/draw_figures.py")
