"""A table of tags of which a share is wrong, to see what wrong tags cost.

    python experiments/wrong_tags.py TAGS OUT --classes cat dog ... --share 0.05 [--seed 0]

In the given share of the pictures that have one of the classes, one tag of these is replaced by another class that the picture
does not have: what is there loses its tag, and what is not there gets one. All else stays as it is. A larger share with the
same seed has all the wrong tags of a smaller one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mupvss.data.tags import read_tags
from mupvss.data.tags.table import write_tags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tags", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = {name: set(tags) for name, tags in read_tags(given.tags).tags.items()}
    rng, classes = np.random.default_rng(given.seed), set(given.classes)
    having = sorted(name for name, tags in table.items() if tags & classes and classes - tags)
    chances = rng.random(len(having))
    wrong = [name for name, chance in zip(having, chances, strict=True) if chance < given.share]
    draws = dict(zip(having, rng.random((len(having), 2)), strict=True))
    for name in wrong:
        own, others = sorted(table[name] & classes), sorted(classes - table[name])
        first, second = draws[name]
        table[name] = table[name] - {own[int(first * len(own))]} | {others[int(second * len(others))]}
    write_tags(given.out, table)
    print(f"{given.out}: {len(wrong)} of {len(having)} pictures have a wrong tag")


if __name__ == "__main__":
    main()
