"""Writes the result tables of README.md and docs/results.md from the records in docs/results.

    python docs/write_tables.py [--check]

A table stands between `<!-- table NAME -->` and `<!-- end -->`. --check changes nothing, and exits with 1 where a table is not
what the records say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from mupvss.compare.tables import PAPER, figure, markdown, paper_figures

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "results"
FILES = (ROOT / "README.md", ROOT / "docs" / "results.md")
ANIMALS = (
    ("CAM on a CNN (EfficientNet-lite0)", "cnn-cam", "cam"),
    ("CAM on the ViT", "vit-cam", "cam"),
    ("MCTformer", "mctformer", "attended_cam_spread"),
    ("MCTformer+", "mctformer-plus", "attended_cam_spread"),
    ("the best of these with our refinement: MCTformer", "mctformer", "attended_cam_refined"),
    ("the paper's formulas as printed", "paper-literal", "attended_search_refined"),
    ("MuP-VSS without its three losses", "base-o", "attended_search_refined"),
    ("**MuP-VSS**", "mupvss", "attended_search_refined"),
    ("MuP-VSS, its classifier in the prototypes' place", "mupvss", "attended_cam_refined"),
)
SCENES = (
    ("CAM on a CNN (a narrow ResNet38)", "cnn-cam-scratch", "cam"),
    ("CAM on the ViT, our refinement", "vit-cam", "cam_refined"),
    ("MCTformer, our refinement", "mctformer", "attended_cam_refined"),
    ("MCTformer+, our refinement", "mctformer-plus", "attended_cam_refined"),
    ("the paper's formulas as printed", "paper-literal", "attended_search_refined"),
    ("MuP-VSS without PEM", "ge", "attended_search_refined"),
    ("**MuP-VSS** (with PEM)", "mupvss", "attended_search_refined"),
)
TABLES = {"animals": ("voc-animals", ANIMALS), "scenes": ("scenes", SCENES)}


PAPER_ROWS = (
    ("CAM", "EfficientNet-lite0", "cnn-cam", "cam"),
    ("CAM", "DeiT-Ti", "vit-cam", "cam"),
    ("MCTformer", "DeiT-Ti", "mctformer", "attended_cam_spread"),
    ("MCTformer+", "DeiT-Ti", "mctformer-plus", "attended_cam_spread"),
    ("MCTformer, our refinement", "DeiT-Ti", "mctformer", "attended_cam_refined"),
    ("MuP-VSS as printed", "DeiT-Ti", "paper-literal", "attended_search_refined"),
    ("**MuP-VSS (ours)**", "DeiT-Ti", "mupvss", "attended_search_refined"),
)


def paper_table() -> str:
    body = []
    for title, backbone, config, kind in PAPER_ROWS:
        found = recorded("voc-animals", config, kind)
        figures = paper_figures([one["miou"] for one in found], [one["miou_oracle"] for one in found])
        body.append([title, backbone, "ImageNet-1k, tags", "none", *figures])
    return markdown((PAPER, body)).rstrip("\n")


def recorded(folder: str, config: str, kind: str) -> list[dict[str, Any]]:
    """What the records of a config say of one kind of maps, seed by seed."""
    return [json.loads(path.read_text())["kinds"][kind] for path in sorted((RECORDS / folder / config).glob("seed-*.json"))]


def table(name: str) -> str:
    if name == "paper":
        return paper_table()
    folder, rows = TABLES[name]
    lines = ["| maps from tags, mIoU | threshold without masks | oracle threshold | seeds |", "|---|---|---|---|"]
    for title, config, kind in rows:
        found = recorded(folder, config, kind)
        cells = [figure([one[key] for one in found]) for key in ("miou", "miou_oracle")]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {len(found)} |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The text with its tables written again."""
    pattern = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
    return pattern.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[4]}", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    before = {path: path.read_text(encoding="utf-8") for path in FILES}
    stale = {path: new for path, text in before.items() if (new := written(text)) != text}
    for path, text in stale.items():
        if given.check:
            name = path.relative_to(ROOT)
            print(f"{name}: its tables are not those of the records; run python docs/write_tables.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
