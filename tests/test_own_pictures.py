"""What someone with a folder of pictures types: init, data check, run, predict, data doctor."""

from __future__ import annotations

import csv
import itertools
import json
import shutil

import numpy as np
import pytest
from helpers import TINY, words
from PIL import Image

from mupvss.cli.main import main
from mupvss.config.load import load_config, save_config
from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.sample import Dataset, Sample
from mupvss.data.tags import read_tags, write_tags
from mupvss.doctor.masks import mask_doubt
from mupvss.doctor.run import write_page
from mupvss.doctor.tags import LIKELY, corrected, discriminant, findings, neighbours_say, tag_doubts
from mupvss.options import AFFINITIES
from mupvss.search.seeds import Seeds
from mupvss.start.init import image_steps

pytestmark = pytest.mark.slow

OWN = {"baseline": False, "model.weights": "", "snapshots": 1, "search.scales": [1.0]}
SMALL = words({key: value for key, value in TINY.items() if not key.startswith(("data.", "affinity."))} | OWN)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of red and blue pictures with a table of tags, its config, and the finished run."""
    root = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    tags = {}
    for i in range(12):
        pixels = rng.integers(0, 60, (40, 56, 3))
        pixels[8:30, 10:40, 0 if i % 2 else 2] += 180
        name = f"{'album' if i < 6 else 'more'}/{i}.jpg"
        (root / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / "pictures" / name)
        tags[name] = {"red" if i % 2 else "blue"}
    write_tags(root / "tags.csv", tags)
    config = root / "mine.toml"
    arguments = ["init", str(root / "pictures"), "--tags", str(root / "tags.csv"), "--out", str(config), "--weights", ""]
    assert main([*arguments, "--quick"]) == 0
    assert main(["run", str(config), "--out", str(root / "run"), *SMALL]) == 0
    return root


def test_init_writes_what_run_reads(project, capsys):
    config = load_config(project / "mine.toml")
    assert config.data.classes == ("blue", "red")
    assert (config.model.backbone, config.affinity.kind) == ("micro", "none"), "without pretrained weights"
    arguments = ["init", str(project / "pictures"), "--tags", str(project / "tags.csv"), "--out", str(project / "mine.toml")]
    assert main(arguments) == 1
    assert "already exists" in capsys.readouterr().err
    other = project / "hub.toml"
    assert main([*arguments[:-1], str(other), "--quick", "--backbone", "small"]) == 0
    said = capsys.readouterr().out
    assert load_config(other).model.weights == "timm/deit_small_patch16_224.fb_in1k"
    assert load_config(other).affinity.kind == "head"
    assert load_config(other).train.image_steps == 3200
    few = "fewer than 20 pictures of blue, red"
    for part in ("12 pictures, 2 tags", few, "Without internet", "mupvss run", "mupvss data doctor"):
        assert part in said
    other.unlink()


def test_image_steps_follow_the_number_of_pictures():
    steps = [image_steps(count) for count in (1, 100, 437, 1406, 5000, 10**6)]
    assert steps == [3200, 3200, 6300, 11_200, 40_000, 200_000]
    assert all(a <= b for a, b in itertools.pairwise(image_steps(count) for count in range(1, 4000, 7)))


def test_pictures_kept_back_and_true_masks(project, tmp_path, capsys):
    """data split, init with both tables, run; then masks turn up, and one of them is corrected."""
    pictures, parts, config = project / "pictures", tmp_path / "parts", tmp_path / "kept.toml"
    tables = ["--tags", str(project / "tags.csv"), "--parts", "train=0.75", "val=0.25", "--seed", "1"]
    assert main(["data", "split", str(pictures), str(parts), *tables]) == 0
    known = ["--tags", str(parts / "train.csv"), "--val-tags", str(parts / "val.csv")]
    assert main(["init", str(pictures), *known, "--out", str(config), "--weights", "", "--quick"]) == 0
    masks = tmp_path / "masks"
    masks.mkdir()
    run = ["run", str(config), "--out", str(tmp_path / "run"), "--data.masks", str(masks), *SMALL]
    assert main(run) == 0
    kept, learned = (set(read_tags(parts / f"{name}.csv").tags) for name in ("val", "train"))
    assert kept
    assert not kept & learned
    found = {path.stem for path in (tmp_path / "run" / "val" / "masks").glob("*.png")}
    assert found == {name.removesuffix(".jpg").replace("/", "__") for name in kept}
    figures = tmp_path / "run" / "metrics.json"
    assert "val/miou" not in json.loads(figures.read_text())

    def draw(name, right):
        mask = np.zeros((40, 56), np.uint8)
        mask[8:30, 10:right] = 2 if int(name.split("/")[1][:-4]) % 2 else 1
        write_palette_png((masks / name).with_suffix(".png"), mask)

    for name in kept | learned:
        draw(name, 40)
    capsys.readouterr()
    searched = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "seeds" / "maps").rglob("*.npz")}
    assert main(run) == 0
    first = json.loads(figures.read_text())
    assert {"seeds/miou", "masks/miou", "val/miou"} <= first.keys()
    assert searched == {path: path.stat().st_mtime_ns for path in searched}
    draw(sorted(learned)[0], 20)
    assert main(run) == 0
    assert json.loads(figures.read_text())["seeds/miou"] != first["seeds/miou"]
    said = capsys.readouterr().err
    assert said.count("train: up to date") == said.count("segment: up to date") == 2
    assert main(run) == 0
    assert capsys.readouterr().err.count("up to date") == 6  # of the affinity, which has nothing to do, nothing is said


@pytest.mark.parametrize("kind", ["none", "head"])
def test_init_measures_this_computer(project, capsys, monkeypatch, kind):
    config = load_config(project / "run" / "train" / "config.toml")
    small = {} if kind == "none" else {"crop": 32}
    config = config.model_copy(update={"affinity": AFFINITIES[kind](**small)})
    save_config(project / "config.toml", config)
    monkeypatch.setattr("mupvss.start.init.config_text", lambda *a: (project / "config.toml").read_text())
    out = project / "timed.toml"
    assert main(["init", str(project / "pictures"), "--tags", str(project / "tags.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "on this computer" in said
    assert "in all" in said
    assert ("affinity" in said) == (kind == "head")
    out.unlink()


def test_init_asks_only_people(capsys, monkeypatch):
    assert main(["init"]) == 1
    assert "mupvss init needs the folder" in capsys.readouterr().err


def test_predict_in_several_formats(project, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["predict", str(project / "run"), str(project / "pictures"), "--out", str(out)]
    assert main([*arguments, "--formats", "masks", "overlay", "coco", "yolo"]) == 0
    masks = sorted(p.relative_to(out / "masks").as_posix() for p in (out / "masks").rglob("*.png"))
    assert masks == sorted(f"{'album' if i < 6 else 'more'}/{i}.png" for i in range(12))
    figures = json.loads((out / "predictions.json").read_text())
    assert set(figures["album/0.jpg"]["scores"]) == {"red", "blue"}
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 12
    before = (out / ".found" / "album" / "0.png").stat().st_mtime_ns
    assert main([*arguments, "--formats", "voc"]) == 0  # another format searches nothing again
    assert (out / ".found" / "album" / "0.png").stat().st_mtime_ns == before
    assert main([*arguments, "--tag", "red"]) == 0  # other tags do
    assert (out / ".found" / "album" / "0.png").stat().st_mtime_ns != before
    assert set(np.unique(read_label_image(out / "masks" / "album" / "0.png"))) <= {0, 2}


def test_predict_notices_another_network_in_the_same_place(project, tmp_path):
    """A shared folder has its network right in it; the settings of the test are part of what a run answers with."""
    run, shared, out = tmp_path / "run", tmp_path / "shared", tmp_path / "out"
    shutil.copytree(project / "run", run)
    picture, kept = str(project / "pictures" / "album" / "0.jpg"), out / ".found" / "0.json"

    def made_by(*place):
        assert main(["predict", *map(str, place), picture, "--out", str(out), "--formats", "masks"]) == 0
        return json.loads(kept.read_text())["made_by"]

    assert main(["share", str(run), str(shared)]) == 0
    first = made_by(shared)
    assert made_by(shared) == first
    assert main(["share", str(run), str(shared), "--classifier"]) == 0
    assert made_by(shared) != first
    first = made_by(run)
    assert main(["val", str(project / "mine.toml"), "--out", str(run), *SMALL, "--segment.scales", "0.5"]) == 0
    assert made_by(run) != first


def test_predict_does_not_take_its_own_masks_for_pictures(project, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    Image.open(project / "pictures" / "album" / "0.jpg").save(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path / "in")
    for out, given in (
        ("predictions", "."),
        ("predictions", "."),
        (".", "."),
        (".", "."),
        (".", "**/*.*g"),
        ("predictions", "**/*.*g"),
    ):
        assert main(["predict", str(project / "run"), given, "--out", out, "--formats", "masks", "overlay"]) == 0
        assert list(json.loads((tmp_path / "in" / out / "predictions.json").read_text())) == ["a.png"]
    assert main(["predict", str(project / "run"), "a**.png"]) in (0, 1)  # no pattern in Python 3.11 and 3.12
    assert "Traceback" not in capsys.readouterr().err


def test_the_doctor_reads_the_pictures_as_the_training_did(project, tmp_path, capsys):
    """Pictures that cannot be read are left out there too, and other classes than the network's are an error."""
    shutil.copytree(project / "pictures", tmp_path / "pictures")
    table = tmp_path / "t.csv"
    shutil.copy(project / "tags.csv", table)
    (tmp_path / "pictures" / "album" / "0.jpg").write_bytes(b"no picture")
    known = ["--data.unreadable", "skip", "--data.root", str(tmp_path / "pictures"), "--data.tags", str(table)]
    run = tmp_path / "run"
    assert main(["train", str(project / "mine.toml"), "--out", str(run), *SMALL, *known]) == 0
    assert main(["data", "doctor", str(run)]) == 0
    assert len(list(csv.DictReader((run / "doctor" / "tags.csv").open()))) == 11
    config = load_config(run / "train" / "config.toml")
    data = config.data.model_copy(update={"classes": ("blue", "green", "red")})
    save_config(run / "train" / "config.toml", config.model_copy(update={"data": data}))
    assert main(["data", "doctor", str(run)]) == 1
    assert "its network knows blue, red, and the tags are now blue, green, red" in capsys.readouterr().err


def test_a_test_on_training_pictures_says_so(project, tmp_path, capsys):
    """Without further pictures the network is tested on those that have a true mask; it has learned from them."""
    masks = tmp_path / "masks"
    for name in read_tags(project / "tags.csv").tags:
        labels = np.zeros((40, 56), np.uint8)
        labels[8:30, 10:40] = 1
        write_palette_png((masks / name).with_suffix(".png"), labels)
    shutil.copytree(project / "run", tmp_path / "run")
    run = ["run", str(project / "mine.toml"), "--out", str(tmp_path / "run"), "--data.masks", str(masks), *SMALL]
    assert main(run) == 0
    assert "was tested on training pictures" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "val" / "calibration.json").read_text()) == {}
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "has never seen" not in page
    assert "training pictures that have a true mask" in page


def test_predict_with_known_tags_and_bad_pictures(project, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    good = Image.open(project / "pictures" / "album" / "0.jpg")
    good.save(tmp_path / "in" / "good.png")
    good.save(tmp_path / "in" / "unlisted.png")
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    write_tags(tmp_path / "t.csv", {"good.png": {"blue"}, "text.jpg": set()})
    out = tmp_path / "out"
    arguments = ["predict", str(project / "run"), str(tmp_path / "in" / "*.*"), "--out", str(out), "--classifier"]
    assert main([*arguments, "--tags", str(tmp_path / "t.csv")]) == 1
    said = capsys.readouterr().err
    assert "text.jpg: cannot be read as a picture" in said
    assert "unlisted.png: not in" in said
    assert "1 of 3 pictures" in said
    assert list(json.loads((out / "predictions.json").read_text())) == ["good.png"]
    assert json.loads((out / "predictions.json").read_text())["good.png"]["tags"] == ["blue"]


def test_predict_understands_capitals_and_names_unknown_tags(project, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("one.png", "two.png"):
        Image.open(project / "pictures" / "album" / "0.jpg").save(tmp_path / "in" / name)
    (tmp_path / "t.csv").write_text("image,tags\none.PNG,Blue\ntwo,green|red\nthree.png,red\n")
    arguments = [
        "predict",
        str(project / "run"),
        str(tmp_path / "in"),
        "--tags",
        str(tmp_path / "t.csv"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--formats", "masks"]) == 0
    said = capsys.readouterr().err
    for part in ("Blue is blue", "does not know, left out: green (1)", "rows that were not used: 1 (picture 'three.png'"):
        assert part in said
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {name: entry["tags"] for name, entry in found.items()} == {"one.png": ["blue"], "two.png": ["red"]}
    (tmp_path / "t.csv").write_text("image,tags\none.png,green\ntwo.png,gren\n")
    assert main(arguments) == 1
    assert "none of its tags is known to this network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent/*.jpg"], "no such picture, folder or match"),
        (["."], "no picture"),
        ([".", "--formats", "kitti"], "no format 'kitti'"),
    ],
)
def test_predict_says_what_is_wrong(project, tmp_path, capsys, monkeypatch, arguments, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["predict", str(project / "run"), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_predict_refuses_two_pictures_of_one_name(project, tmp_path, capsys):
    for suffix in ("png", "bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
    assert main(["predict", str(project / "run"), str(tmp_path)]) == 1
    assert "would both be written as 'a'" in capsys.readouterr().err


def test_doctor_lists_and_fixes(project, tmp_path, capsys):
    out, fixed = tmp_path / "doctor", tmp_path / "fixed.csv"
    assert main(["data", "doctor", str(project / "run"), "--out", str(out), "--fix", str(fixed)]) == 0
    rows = list(csv.DictReader((out / "tags.csv").open()))
    assert len(rows) == 12
    assert [float(row["doubt"]) for row in rows] == sorted((float(row["doubt"]) for row in rows), reverse=True)
    assert len(list(csv.DictReader((out / "masks.csv").open()))) == 12
    page = (out / "index.html").read_text()
    assert page.count("<img") == 24
    assert page.count("is likely") == sum(float(row["doubt"]) >= LIKELY for row in rows)
    assert set(read_tags(fixed).tags) == set(read_tags(project / "tags.csv").tags)
    assert all(read_tags(fixed).tags.values())
    before = fixed.read_text()
    assert main(["data", "doctor", str(project / "run"), "--out", str(out), "--fix", str(fixed)]) == 1
    assert "tag tables are never overwritten" in capsys.readouterr().err
    assert fixed.read_text() == before


def test_doctor_goes_on_where_it_was(project, tmp_path):
    out = tmp_path / "doctor"
    assert main(["data", "doctor", str(project / "run"), "--out", str(out)]) == 0
    whole = (out / "evidence.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    kept = json.loads(lines[2])
    kept["heads"][0][0] += 1.0  # that it was not looked at again can be seen
    lines[2] = json.dumps(kept) + "\n"
    (out / "evidence.jsonl").write_text("".join(lines[:5]) + lines[5][:7])
    assert main(["data", "doctor", str(project / "run"), "--out", str(out)]) == 0
    assert (out / "evidence.jsonl").read_text() == "".join(lines)
    (out / "evidence.jsonl").write_text('{"identity": "another"}\n' + "".join(lines[1:]))
    assert main(["data", "doctor", str(project / "run"), "--out", str(out)]) == 0
    assert (out / "evidence.jsonl").read_text() == whole


def test_doubt_is_measured_within_a_class():
    """Strengths of class 0 are all low, those of class 1 all high; what counts is which side a picture lies on."""
    rng = np.random.default_rng(0)
    tags = np.stack([np.arange(100) % 2, np.arange(100) // 2 % 2], 1).astype(float)
    strong = np.where(tags > 0, 3.0, -1.0) + np.array([0.0, 6.0]) + rng.uniform(-0.1, 0.1, (100, 2))
    assert tag_doubts(strong, tags).max() < 0.2
    planted = tags.copy()
    planted[3, 0] = 0  # missing
    planted[9, 1] = 1  # wrong
    doubts = tag_doubts(strong, planted)
    found = findings(doubts, strong, planted, ("a", "b"))
    assert {(f.picture, f.tag, f.kind) for f in found[:2]} == {(3, "a", "missing"), (9, "b", "wrong")}
    assert found[2].doubt < 0.2
    assert np.array_equal(corrected(doubts, planted, 0.5), tags)


def test_no_doubt_without_the_other_side():
    assert not tag_doubts(np.full((4, 1), 0.1), np.ones((4, 1))).any()
    assert not tag_doubts(np.full((4, 1), 0.9), np.zeros((4, 1))).any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tagged", [[7], [3, 8], [3, 40], [1, 2, 3, 4, 5, 6, 7, 8], list(range(1, 60)), list(range(5, 60))])
def test_a_tag_that_cannot_be_told_is_not_put_on_everything(tagged, seed):
    """Alone in its fold, or with its like in the same one, a tag cannot be judged there; nor one that all but one have; nor one
    that nothing gives away."""
    evidence = np.random.default_rng(seed).normal(size=(60, 4))
    given = np.isin(np.arange(60), tagged)
    strong = discriminant(evidence, given)[:, None]
    assert np.isfinite(strong).any()
    tags = given[:, None].astype(float)
    assert (corrected(tag_doubts(strong, tags), tags, LIKELY) == tags).all()


def test_the_page_calls_nothing_likely_that_is_not(tmp_path):
    picture = Image.new("RGB", (8, 8))
    dataset = Dataset(("cat",), [Sample(n, n, frozenset({"cat"}), lambda: picture) for n in "abc"])
    tags, scores = np.ones((3, 1)), np.full((3, 1), 0.9)
    for doubts, shown, likely in (([0.0, 0.0, 0.0], 0, 0), ([LIKELY + 0.1, LIKELY - 0.1, 0.0], 2, 1)):
        found = findings(np.array(doubts)[:, None], scores, tags, dataset.classes)
        write_page(tmp_path, dataset, found, [], 5, tmp_path)
        page = (tmp_path / "index.html").read_text()
        assert (page.count("<img"), page.count("is likely wrong")) == (shown, likely)
        assert page.count("might be wrong") == shown - likely


def test_marks_that_stand_the_wrong_way_round_prove_nothing():
    strong = np.array([[1.0], [2.0], [3.0], [0.5]])
    assert not tag_doubts(strong, np.array([[0.0], [0], [0], [1]])).any()


def test_a_correction_takes_no_last_tag():
    tags = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]])
    strong = np.array([[9.0, 1], [9, 1], [9, 1], [1, 9], [1, 9], [1, 9], [1, 1]])
    assert np.array_equal(corrected(tag_doubts(strong, tags), tags, 0.5), tags)
    strong[6, 1] = 9
    assert corrected(tag_doubts(strong, tags), tags, 0.5)[6].tolist() == [0, 1]


def test_neighbours_have_a_say_and_the_picture_itself_has_none():
    rng = np.random.default_rng(0)
    sides = np.arange(200) % 2
    features = rng.normal(size=(200, 8)).astype(np.float32) + 4 * np.where(sides, 1, -1)[:, None]
    tags = np.stack([sides, 1 - sides], 1).astype(float)
    said = neighbours_say(features, tags)
    assert ((said > 0) == (tags > 0)).all()
    planted = tags.copy()
    planted[5] = 1 - planted[5]
    assert (neighbours_say(features, planted)[5] > 0).tolist() == (tags[5] > 0).tolist()
    assert not neighbours_say(features[:1], tags[:1]).any()
    assert np.isfinite(neighbours_say(np.zeros((3, 4), np.float32), np.ones((3, 2)))).all()


def test_a_discriminant_uses_what_another_class_says_and_not_the_own_tag():
    rng = np.random.default_rng(1)
    given = np.arange(300) % 3 == 0
    shared = rng.normal(size=300)
    own = given * 1.0 + shared
    evidence = np.stack([own, shared, rng.normal(size=300)], 1)  # own less shared tells perfectly
    found = discriminant(evidence, given)
    assert ((found > 0) == given).all()
    planted = given.copy()
    planted[7] = not given[7]
    assert (discriminant(evidence, planted)[7] > 0) == given[7]
    assert np.isnan(discriminant(evidence, np.zeros(300, bool))).all()
    few = discriminant(rng.normal(size=(6, 40)), np.array([1, 0, 1, 0, 1, 0], bool))  # more evidence than pictures
    assert np.isfinite(few).all()


def test_masks_that_are_settled_and_not():
    sharp = np.zeros((1, 10, 10), np.float32)
    sharp[0, 2:8, 2:8] = 1.0
    soft = np.linspace(0, 1, 100, dtype=np.float32).reshape(1, 10, 10)
    ids = np.array([3], np.int16)
    assert mask_doubt(0, Seeds(ids, sharp, (40, 40), 4), 0.4).doubt == 0
    assert mask_doubt(0, Seeds(ids, soft, (40, 40), 4), 0.4).doubt > 0.2
    assert mask_doubt(0, Seeds(ids, np.zeros_like(soft), (40, 40), 4), 0.4).reach == 1
    assert mask_doubt(0, Seeds(ids, np.ones_like(soft), (40, 40), 4), 0.4).reach == 1
    assert mask_doubt(0, Seeds(ids[:0], soft[:0], (40, 40), 4), 0.4).doubt == 0
    two = np.array([1, 2], np.int16)
    beside_sharp, beside_soft = (
        mask_doubt(0, Seeds(two, np.concatenate([other, np.zeros_like(other)]), (40, 40), 4), 0.4) for other in (sharp, soft)
    )
    assert beside_sharp.reach == beside_soft.reach == 1
    assert 0.9 < beside_sharp.doubt < beside_soft.doubt < 1, "the other class decides between pictures that lost one"
