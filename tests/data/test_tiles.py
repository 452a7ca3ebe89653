"""Large pictures cut into tiles, with masks in ids, in a labelmap's colours and in those of ISPRS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from mupvss.cli.main import main
from mupvss.config.load import load_config
from mupvss.data.folder import load_folder
from mupvss.data.masks import IGNORE, read_label_image, write_palette_png
from mupvss.data.tags import read_tags
from mupvss.data.tiles import ISPRS, starts
from mupvss.options import FolderData


@pytest.mark.parametrize(("length", "size", "overlap"), [(100, 32, 0), (96, 32, 0), (97, 32, 8), (20, 32, 0), (33, 32, 31)])
def test_tiles_cover_every_pixel(length, size, overlap):
    found = starts(length, size, overlap)
    covered = {pixel for start in found for pixel in range(start, min(length, start + size))}
    assert covered == set(range(length))
    assert found == sorted(set(found))
    assert all(a + size - b >= overlap for a, b in itertools.pairwise(found))
    assert len(found) == (1 if length <= size else -(-(length - size) // (size - overlap)) + 1)


@pytest.fixture
def land(tmp_path):
    """One picture of 150 x 100 pixels as Potsdam names it: building left, tree right, one car, a black border in the mask."""
    labels = np.zeros((100, 150), np.uint8)
    labels[:, :75], labels[:, 75:] = 2, 4
    labels[80:90, 120:130] = 5
    labels[:, 74:76] = IGNORE
    colours = np.zeros((100, 150, 3), np.uint8)
    for number, colour in enumerate(ISPRS.values(), 1):
        colours[labels == number] = colour
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    (tmp_path / "gt").mkdir()
    picture = rng.integers(0, 255, (100, 150, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "in" / "top_potsdam_2_10_RGB.tif")
    Image.fromarray(colours).save(tmp_path / "gt" / "top_potsdam_2_10_label.tif")
    return tmp_path, picture, labels


def test_isprs_tiles_become_a_data_set(land):
    folder, picture, labels = land
    arguments = ["data", "tiles", str(folder / "in"), str(folder / "out"), "--size", "64", "--masks", str(folder / "gt")]
    assert main([*arguments, "--colours", "isprs", "--overlap", "6"]) == 0
    tags = read_tags(folder / "out" / "tags.csv").tags
    assert len(tags) == 2 * 3
    seen = np.zeros(labels.shape, int)
    for name, entry in tags.items():
        top, left = map(int, name.removesuffix(".png").split("_")[-2:])
        part = labels[top : top + 64, left : left + 64]
        seen[top : top + 64, left : left + 64] += 1
        np.testing.assert_array_equal(
            np.array(Image.open(folder / "out" / "pictures" / name)), picture[top : top + 64, left : left + 64]
        )
        np.testing.assert_array_equal(read_label_image(folder / "out" / "masks" / name), part)
        there = {tag for number, tag in enumerate(ISPRS, 1) if (part[part != IGNORE] == number).mean() >= 0.005}
        assert entry == there
    assert seen.min() >= 1
    assert any("car" in entry for entry in tags.values())
    config = FolderData(root=folder / "out" / "pictures", tags=folder / "out" / "tags.csv", masks=str(folder / "out" / "masks"))
    assert all(sample.open_mask is not None for sample in load_folder(config, "train").samples)


def test_one_folder_for_both_and_a_picture_without_a_mask(land, capsys):
    folder, _, _ = land
    Image.new("RGB", (80, 40)).save(folder / "in" / "top_potsdam_2_11_RGB.tif")
    (folder / "gt" / "top_potsdam_2_10_label.tif").rename(folder / "in" / "top_potsdam_2_10_label.tif")
    both = str(folder / "in")
    assert main(["data", "tiles", both, str(folder / "out"), "--masks", both, "--colours", "isprs", "--size", "100"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "so their tiles have no tags: 1 picture (top_potsdam_2_11_RGB.tif)" in said
    names = {path.name for path in (folder / "out" / "pictures").iterdir()}
    assert names == {"top_potsdam_2_10_RGB_0_0.png", "top_potsdam_2_10_RGB_0_50.png", "top_potsdam_2_11_RGB_0_0.png"}


def test_masks_of_ids_and_what_cannot_be_used(tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    (tmp_path / "in").mkdir()
    for name, size in (("a", (40, 30)), ("b", (40, 30)), ("c", (40, 30))):
        Image.new("RGB", size).save(tmp_path / "in" / f"{name}.png")
    write_palette_png(tmp_path / "masks" / "a.png", np.full((30, 40), 1, np.uint8))
    write_palette_png(tmp_path / "masks" / "b.png", np.full((31, 40), 1, np.uint8))
    write_palette_png(tmp_path / "masks" / "c.png", np.full((30, 40), 3, np.uint8))
    (tmp_path / "in" / "d.png").write_bytes(b"nothing")
    cut = ["data", "tiles", str(tmp_path / "in"), str(tmp_path / "out"), "--masks", str(tmp_path / "masks")]
    assert main(cut) == 1
    assert "what do the class ids mean? Give --classes" in capsys.readouterr().err
    assert main([*cut, "--classes", "rust", "leaf"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    for part in ("b.png: 40x31 pixels, its picture has 40x30", "d.png", "class id 3, and there are 2 classes", "rust, leaf"):
        assert part in said
    assert read_tags(tmp_path / "out" / "tags.csv").tags == {"a_0_0.png": {"rust"}}
    assert main(["data", "tiles", str(tmp_path / "in"), str(tmp_path / "o"), "--size", "16", "--overlap", "16"]) == 1
    assert main(["data", "tiles", str(tmp_path / "masks" / "no"), str(tmp_path / "o")]) == 1
    base = load_config(tmp_path / "out" / "data.toml").data
    assert (base.classes, load_folder(base, "train").samples[0].tags) == (("rust", "leaf"), {"rust"})


@pytest.fixture
def cut(tmp_path):
    """Arguments for four tiles of one picture with a mask."""
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.png")
    write_palette_png(tmp_path / "masks" / "a.png", np.full((64, 64), 1, np.uint8))
    return ["data", "tiles", str(tmp_path / "in"), str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--classes", "rust"]


def test_no_file_of_the_user_is_overwritten(tmp_path, cut, capsys):
    """Not a table of tags, not the pictures themselves; and tiles of two sizes are not mixed."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tags.csv").write_text("image,tags\n")
    cut[3] = str(tmp_path / "mine")
    assert main([*cut, "--size", "32"]) == 1
    assert (tmp_path / "mine" / "tags.csv").read_text() == "image,tags\n"
    cut[3] = str(tmp_path / "in" / "tiles")
    assert main([*cut, "--size", "32"]) == 1
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]
    cut[3] = str(tmp_path / "out")
    assert main([*cut, "--size", "32"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert main([*cut, "--size", "64"]) == 1
    assert "tiles of another size" in capsys.readouterr().err
    assert main([*cut, "--size", "32"]) == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_masks_that_say_nothing_are_an_error_and_unknown_tiles_no_negatives(tmp_path, cut, capsys):
    labels = np.zeros((64, 64), np.uint8)
    labels[:, :40] = 255
    write_palette_png(tmp_path / "masks" / "a.png", labels)
    assert main([*cut, "--size", "32"]) == 1
    assert "no mask has a pixel of any class. Are these masks of 0 and 255?" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "tags.csv").exists()
    labels[:, 40:] = 1
    write_palette_png(tmp_path / "masks" / "a.png", labels)
    assert main([*cut, "--size", "32"]) == 0
    assert read_tags(tmp_path / "out" / "tags.csv").tags == {f"a_{top}_32.png": {"rust"} for top in (0, 32)}
    assert "less than half is known, without tags: 2 tiles" in " ".join(capsys.readouterr().err.split())


def test_names_that_meet_and_words_that_are_not_there(tmp_path, cut, capsys):
    (tmp_path / "masks" / "labelmap.txt").write_text("rust:1,2,3::\n")
    assert main([*cut[:-1], "rusty"]) == 1
    assert "--classes has 'rusty'" in capsys.readouterr().err
    assert main([*cut, "--least", "5"]) == 1
    write_palette_png(tmp_path / "masks" / "a_label.png", np.zeros((64, 64), np.uint8))
    assert main(cut) == 1
    assert "would both be the mask of 'a'" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "masks" / "a_label.png").unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.jpg")
    assert main(cut) == 1
    assert "their tiles would have the same names" in " ".join(capsys.readouterr().err.split())
