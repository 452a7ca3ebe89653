"""Parts of a data set in which every tag has its share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mupvss.cli.main import main
from mupvss.data.split import parse_parts, split_by_tag
from mupvss.data.tags import read_tags

TAGS = st.dictionaries(
    st.integers(0, 10**6).map(lambda i: f"{i}.jpg"), st.frozensets(st.sampled_from("abcde"), max_size=3), min_size=1, max_size=80
)


@settings(max_examples=60, deadline=None)
@given(tags=TAGS)
def test_nothing_is_lost_and_every_tag_is_everywhere(tags):
    found = split_by_tag(tags, {"train": 0.7, "val": 0.2, "test": 0.1}, 0)
    assert {name: entry for part in found.values() for name, entry in part.items()} == tags
    assert sum(map(len, found.values())) == len(tags)
    counts = Counter(tag for entry in tags.values() for tag in entry)
    # A picture with several tags can only be in one place, so this is sure for the rarest tag alone, the first of those as rare.
    rarest = min(counts, key=lambda tag: (counts[tag], tag), default=None)
    if rarest is not None and counts[rarest] >= 3:
        assert all(any(rarest in entry for entry in part.values()) for part in found.values())


def test_shares_are_kept():
    rng = np.random.default_rng(0)
    tags = {f"{i}.jpg": frozenset(c for c, p in (("a", 0.5), ("b", 0.2), ("c", 0.05)) if rng.random() < p) for i in range(1000)}
    found = split_by_tag(tags, {"train": 0.8, "val": 0.2}, 3)
    for tag in "abc":
        counts = [sum(tag in entry for entry in part.values()) for part in found.values()]
        assert abs(counts[1] / sum(counts) - 0.2) < 0.02
    assert len(found["val"]) == pytest.approx(200, abs=5)
    assert found == split_by_tag(tags, {"train": 0.8, "val": 0.2}, 3)
    assert found != split_by_tag(tags, {"train": 0.8, "val": 0.2}, 4)


@pytest.mark.parametrize(
    "parts", [["train"], ["train=x"], ["a=0.5", "b=0.6"], ["a=0.5", "a=0.5"], ["../a=1"], ["a=-1", "b=2"], []]
)
def test_bad_parts(parts):
    with pytest.raises(ValueError):
        parse_parts(parts)


def test_the_command(picture_folder, tmp_path, capsys):
    out = tmp_path / "parts"
    assert main(["data", "split", str(picture_folder), str(out), "--parts", "train=0.5", "val=0.5"]) == 0
    assert "train (2)" in capsys.readouterr().out
    parts = [read_tags(out / f"{name}.csv").tags for name in ("train", "val")]
    assert set(parts[0]) | set(parts[1]) == {"cat/1.jpg", "cat/2.png", "dog/3.jpg", "none/4.jpg"}
    assert all(any("cat" in entry for entry in part.values()) for part in parts)
    assert main(["data", "split", str(picture_folder), str(out)]) == 1
    assert "already exists" in capsys.readouterr().err
