"""A whole comparison on a few tiny scenes, and its statistics by hand."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from helpers import TINY, as_tables
from PIL import Image
from scipy import stats

from mupvss.cli.main import main
from mupvss.compare.figures import completeness_plot
from mupvss.compare.plan import load_configs, plan
from mupvss.compare.results import (
    Record,
    Row,
    difference,
    interval,
    known_record,
    others,
    read_record,
    spread,
    store_record,
    stored_record,
)
from mupvss.compare.tables import costs, latex
from mupvss.config.load import build, load_config, rows_of
from mupvss.data.sample import Dataset
from mupvss.errors import ConfigError, DataError
from mupvss.evaluation.completeness import condensed, regions
from mupvss.files import read_json
from mupvss.report.plot import Series, plot
from mupvss.stages.run_folder import known_by
from mupvss.stages.train import TRAIN

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = {key: value for key, value in TINY.items() if not key.startswith(("search.", "affinity.", "segment."))}
CHANGES = {"data.scenes.train": 16, "data.scenes.seeds": 8, "train.image_steps": 32, "snapshots": 1}
BASE = tomli_w.dumps(as_tables(SMALL | CHANGES | {"search.pixel_steps": 2, "search.canvas_stride": 1}))
METHODS = ("cnn-cam-scratch", "vit-cam", "mctformer-plus", "mupvss")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    (folder / "base.toml").write_text(BASE)
    paths = [CONFIGS / "methods" / f"{name}.toml" for name in METHODS]
    paths += [CONFIGS / f"ablations.toml:{name}" for name in ("base-o", "affinity-none", "full")]
    arguments = ["compare", *map(str, paths), "--base", str(folder / "base.toml"), "--out", str(folder / "out")]
    arguments += ["--reference", "mupvss", "--curve", "4", "--pictures", "2"]
    assert main([*arguments, "--seeds", "0"]) == 0
    assert main([*arguments, "--seeds", "0", "1"]) == 0  # the second seed is added to the first
    return folder / "out", arguments


def test_one_table_for_all(compared):
    out, _ = compared
    table = list(csv.DictReader((out / "table.csv").open()))
    rows = {(row["config"], row["maps"]): row for row in table}
    assert {name for name, _ in rows} == {*METHODS, "base-o", "affinity-none", "full"}
    assert all(row["seeds"] == "2" and "±" in row["mIoU, oracle"] for row in table)
    assert ("vit-cam", "CAM, spread by attention") in rows
    assert rows["mupvss", "search × attention, refined"]["oracle − mupvss"] == ""
    # The same config under another name is the same training with the same seeds: no difference at all.
    assert rows["full", "search × attention, refined"]["oracle − mupvss"] == "+0.0 (± 0.00)"
    assert rows["full", "search × attention, refined"]["body covered"].endswith("%")
    text = (out / "table.md").read_text()
    assert "GFLOP" in text
    assert "| full | shared |" in text


def test_a_table_as_papers_have_it(compared):
    out, _ = compared
    text = (out / "table.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| mupvss | micro |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["mupvss", "micro", "none", "none", "2"]
    assert float(cells[5]) + float(cells[8]) == pytest.approx(float(cells[7]), abs=0.11)
    low, high = map(float, cells[6].split(" to "))
    assert low < float(cells[5]) < high
    written = (out / "table.tex").read_text()
    assert written.startswith("\\begin{tabular}{llllrrrrr}\n\\toprule\nmethod & backbone &")
    assert "95 \\% interval" in written
    assert "mupvss & micro & none & none & 2 & " in written
    assert written.count("\\\\\n") == len(METHODS) + 4  # a header, and a line for each


@pytest.mark.parametrize("count", [2, 3, 10])
def test_intervals_over_seeds(count):
    values = np.random.default_rng(count).normal(60, 3, count).tolist()
    theirs = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx(theirs, abs=0.02)
    assert interval([1.0]) is None
    assert interval([1.0] * 11) is None


def test_signs_in_latex():
    assert latex((["a_b"], [["5 % × {x}\\"]])).splitlines()[2:5:2] == [r"a\_b \\", r"5 \% $\times$ \{x\}\textbackslash{} \\"]


def test_page_with_pictures_and_plots(compared):
    out, _ = compared
    page = (out / "index.html").read_text()
    for name in ("families", "maps", "masks", "one-class"):
        assert f"figures/{name}.png" in page
        with Image.open(out / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert page.count('<svg class="plot"') == 3
    assert "http" not in re.sub(r"http://www\.w3\.org", "", page)


def test_configs_that_differ_in_the_search_share_a_training(compared):
    out, _ = compared
    assert (out / "mupvss" / "seed-1" / "train" / "model.safetensors").is_file()
    assert not (out / "affinity-none" / "seed-1" / "train").exists()
    kinds = read_json(out / "affinity-none" / "seed-1" / "seeds" / "kinds.json")
    assert set(kinds) == {"search_refined", "attended_search_refined", "attended_cam_refined"}


def test_nothing_is_done_twice_and_report_only_does_nothing(compared, capsys):
    out, arguments = compared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    (out / "vit-cam" / "seed-1" / "seeds" / "metrics.json").unlink()
    assert main([*arguments, "--seeds", "0", "1", "--report-only", "--pictures", "0"]) == 0
    assert "13 of 14 runs" in capsys.readouterr().err
    assert main([*arguments, "--seeds", "0", "1"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


def test_records_stand_for_runs_made_elsewhere(compared, tmp_path, capsys):
    out, arguments = compared
    store = tmp_path / "records"
    assert main([*arguments, "--seeds", "0", "1", "--records", str(store)]) == 0
    assert len(list(store.glob("*/seed-*.json"))) == 14
    capsys.readouterr()
    elsewhere = [str(tmp_path / "out") if argument == str(out) else argument for argument in arguments]
    assert main([*elsewhere, "--seeds", "0", "1", "--records", str(store)]) == 0
    assert "14 of 14 runs" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    for name in ("table.csv", "table.md"):
        assert (tmp_path / "out" / name).read_text() == (out / name).read_text()
    assert (tmp_path / "out" / "index.html").read_text().count('<svg class="plot"') == 3


def base_of(compared):
    arguments = compared[1]
    return Path(arguments[arguments.index("--base") + 1])


def vit_cam(compared, seed, base=None):
    """The comparison's entry of ViT CAM, over its base or another."""
    configs = load_configs([CONFIGS / "methods" / "vit-cam.toml"], base or base_of(compared))
    return plan(configs, [seed], compared[0])[0]


def test_a_record_of_other_settings_does_not_count_and_is_kept(compared, tmp_path):
    entry = vit_cam(compared, 0)
    store_record(tmp_path, read_record(entry))
    assert dataclasses.replace(stored_record(tmp_path, entry), on_disk=True) == read_record(entry)
    (tmp_path / "other.toml").write_text(base_of(compared).read_text().replace("pixel_steps = 2", "pixel_steps = 3"))
    other = vit_cam(compared, 0, tmp_path / "other.toml")
    assert stored_record(tmp_path, other) is None
    assert len(others(tmp_path, other)) == 1
    store_record(tmp_path, dataclasses.replace(read_record(entry), entry=other))
    assert stored_record(tmp_path, entry).entry == entry
    assert stored_record(tmp_path, other).entry == other
    assert read_record(other) is None  # what the folder holds is not of these settings
    assert known_record(tmp_path, other) == stored_record(tmp_path, other)


def test_a_run_on_disk_takes_the_records_learning_curve(compared, tmp_path):
    entry = vit_cam(compared, 1)
    assert known_record(tmp_path, entry).curve_pictures == 0
    point = {"image_steps": 3, "cam": {"miou": 1.0, "oracle": 2.0}}
    store_record(tmp_path, dataclasses.replace(read_record(entry), curve=[point], curve_pictures=4))
    assert known_record(tmp_path, entry).curve == [point]
    assert known_record(tmp_path, entry).on_disk


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("kinds"),
        lambda found: found.update(kinds=None),
        lambda found: found.update(kinds={}),
        lambda found: found.update(train={}),
        lambda found: found.update(maps="unknown"),
        lambda found: found.update(curve=[{"image_steps": 3, "cam": 5}]),
        lambda found: found["kinds"]["cam"].update(miou_oracle="54.7"),
        lambda found: found["kinds"]["cam"].update(miou=float("nan")),
        lambda found: found["kinds"]["cam"].pop("miou"),
        lambda found: found["kinds"]["cam"].update(iou_oracle=[50.0]),
        lambda found: found["kinds"]["cam"]["completeness"].update(groups=[[0.1, 0.2]]),
    ],
)
def test_a_damaged_record_is_named(compared, tmp_path, change):
    entry = vit_cam(compared, 0)
    store_record(tmp_path, read_record(entry))
    (path,) = (tmp_path / "vit-cam").iterdir()
    found = read_json(path)
    change(found)
    for text in (json.dumps(found), path.read_text()[:40], "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"{path.name}: not a record.*delete it"):
            stored_record(tmp_path, entry)


def test_where_the_pictures_are_missing_no_record_is_blamed(tmp_path, capsys):
    (tmp_path / "base.toml").write_text(f'[data]\nsource = "folder"\nroot = "{tmp_path / "nowhere"}"\ntags = "tags.csv"')
    store = tmp_path / "records" / "vit-cam"
    store.mkdir(parents=True)
    (store / "seed-0-01234567.json").write_text("{}")
    command = ["compare", str(CONFIGS / "methods" / "vit-cam.toml"), "--base", str(tmp_path / "base.toml"), "--seeds", "0"]
    assert main([*command, "--records", str(store.parent)]) == 1
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "delete" not in told


def test_configs_on_other_pictures(tmp_path, capsys):
    """They have their figures, and no place in tables and pictures of the first config's."""
    few = {**SMALL, **CHANGES, "data.scenes.seeds": 4, "method": "vit-cam", "mupvss.pem.blocks": None}
    (tmp_path / "few.toml").write_text(tomli_w.dumps(as_tables({**few, "data.scenes.seeds": 2})))
    (tmp_path / "more.toml").write_text(tomli_w.dumps(as_tables(few)))
    arguments = [
        "compare",
        str(tmp_path / "more.toml"),
        str(tmp_path / "few.toml"),
        "--seeds",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--pictures", "2"]) == 0
    assert {row["config"] for row in csv.DictReader((tmp_path / "out" / "table.csv").open())} == {"few", "more"}
    assert (tmp_path / "out" / "figures" / "maps.png").is_file()


def test_learning_curve_has_every_snapshot(compared):
    out, _ = compared
    points = read_json(out / "mctformer-plus" / "seed-0" / "curve" / "metrics.json")["points"]
    assert [point["image_steps"] for point in points] == [16, 32]
    assert all(0 <= point["attended_cam_spread"]["oracle"] <= 100 for point in points)
    assert not (out / "mctformer-plus" / "seed-1" / "curve").exists()


def test_errors(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "c.toml", tmp_path / "a" / "c.toml"):
        path.write_text("seed = 1")
    with pytest.raises(ConfigError, match="another config is called c"):
        load_configs([tmp_path / "c.toml", tmp_path / "a" / "c.toml"], None)
    assert main(["compare", str(tmp_path / "c.toml"), "--reference", "d"]) == 1
    assert "choose one of c" in capsys.readouterr().err
    assert main(["compare"]) == 1
    assert main(["compare", str(tmp_path / "c.toml"), "--curve", "-1"]) == 1
    assert "expected 0 or more" in capsys.readouterr().err


def test_extends_and_base(tmp_path):
    (tmp_path / "low.toml").write_text('[train]\nlr = 1e-3\nbatch_size = 4\n[model]\nbackbone = "micro"')
    (tmp_path / "mid.toml").write_text('extends = ["low.toml"]\n[train]\nbatch_size = 8')
    (tmp_path / "top.toml").write_text("[train]\nimage_steps = 9")
    found = load_config(tmp_path / "top.toml", tmp_path / "mid.toml")
    assert (found.train.lr, found.train.batch_size, found.train.image_steps) == (1e-3, 8, 9)
    assert found.model.backbone == "micro"


def test_every_preset_goes_over_every_base():
    table = CONFIGS / "ablations.toml"
    presets = [*sorted(CONFIGS.glob("methods/*.toml")), *(Path(f"{table}:{row}") for row in rows_of(table))]
    assert len(presets) > 30
    for base in sorted((CONFIGS / "comparisons").glob("*.toml")):
        for path in presets:
            assert load_config(path, base).train.image_steps == load_config(base).train.image_steps
    assert set(load_configs([table], base)) == set(rows_of(table))


def test_rows_of_a_table_say_what_is_wrong(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text('[rows.a]\nabout = "x"\ntrain.lr = 1e-3\n[rows.b]\n')
    assert load_config(Path(f"{path}:a")).train.lr == 1e-3
    for name, message in (("t.toml", "name a row, as in"), ("t.toml:c", "no row 'c'; it has a, b")):
        with pytest.raises(ConfigError, match=message):
            load_config(tmp_path / name)
    (tmp_path / "u.toml").write_text("seed = 1")
    with pytest.raises(ConfigError, match="has no table of rows"):
        load_config(tmp_path / "u.toml:a")


def known(values):
    return known_by(TRAIN, build(values), Dataset(("a",), []), [])


def test_a_base_may_hold_a_table_for_every_method():
    """Only the chosen one's is read, and is part of what the training is known by."""
    tables = {"mupvss": {"ccp": 0.5}, "mctformer": {"token_contrast": 1.0}, "recam": {"reactivation": 0.5}}
    assert known({"method": "vit-cam", **tables}) == known({"method": "vit-cam"})
    for method in ("mupvss", "mctformer", "recam"):
        assert (
            known({"method": method, **tables}) == known({"method": method, method: tables[method]}) != known({"method": method})
        )


def test_weights_are_known_by_what_they_hold(tmp_path, monkeypatch):
    def known_by_weights(path):
        return known({"model": {"weights": str(path)}})

    for name, content in (("a", b"one"), ("copy", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(content)
    before = known_by_weights(tmp_path / "a")
    assert before == known_by_weights(tmp_path / "copy")
    assert len({before, known_by_weights(tmp_path / "b"), known_by_weights("timm/a"), known_by_weights("timm/b")}) == 4
    (tmp_path / "a").write_bytes(b"three")
    assert known_by_weights(tmp_path / "a") not in (before, known_by_weights(tmp_path / "b"))
    middle = bytearray(1 << 20)
    (tmp_path / "large").write_bytes(middle)
    large = known_by_weights(tmp_path / "large")
    middle[1 << 19] = 1
    (tmp_path / "other").write_bytes(middle)
    assert known_by_weights(tmp_path / "other") != large
    monkeypatch.setenv("HOME", str(tmp_path))
    assert known_by_weights("~/large") == large


def test_where_the_weights_are_gone_a_finished_training_stays(compared, tmp_path, capsys):
    run, base = compared[0] / "vit-cam" / "seed-0", base_of(compared)
    before = (run / "train" / "stage.json").read_text()
    command = ["train", str(CONFIGS / "methods" / "vit-cam.toml"), "--base", str(base), "--out", str(run), "--seed", "0"]
    assert main([*command, "--model.weights", str(tmp_path / "gone.safetensors")]) == 1
    assert "gone.safetensors: no such weights" in capsys.readouterr().err
    assert (run / "train" / "stage.json").read_text() == before
    assert (run / "train" / "model.safetensors").is_file()


def test_a_curve_scored_against_other_masks_does_not_count(compared):
    out, entry = compared[0], vit_cam(compared, 0)
    path = out / "vit-cam" / "seed-0" / "curve" / "metrics.json"
    whole = path.read_text()
    assert read_record(entry).curve_pictures == 4
    path.write_text(whole.replace(entry.identity.truth, "0" * 64))
    try:
        assert read_record(entry).curve == []
    finally:
        path.write_text(whole)


def test_plan_goes_seed_by_seed(tmp_path):
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "b.toml").write_text("[search]\ngamma = 0.5")
    (tmp_path / "c.toml").write_text("[mupvss]\nccp = 0.0")
    entries = plan(load_configs([tmp_path / f"{n}.toml" for n in "abc"], None), [3, 4], tmp_path / "out")
    assert [(e.name, e.seed) for e in entries] == [(n, s) for s in (3, 4) for n in "abc"]
    assert [e.run.trained_by for e in entries[:3]] == [None, tmp_path / "out" / "a" / "seed-3", None]
    assert entries[4].run.folder("train") == tmp_path / "out" / "a" / "seed-4" / "train"
    assert entries[4].run.folder("seeds") == tmp_path / "out" / "b" / "seed-4" / "seeds"


def record(tmp_path, name, seed, kinds, own):
    (tmp_path / f"{name}.toml").write_text("")
    entry = plan(load_configs([tmp_path / f"{name}.toml"], None), [seed], tmp_path)[0]
    return Record(entry, own, {k: {"miou_oracle": v} for k, v in kinds.items()}, {}, {}, {}, [])


def test_the_table_of_costs_says_on_what_and_in_what_was_computed(tmp_path):
    """An earlier record does not say; figures of several precisions are not passed off as one's."""
    spent, cost = {"seconds": 1.0, "peak_mb": 2.0}, {"parameters": 3e6, "gflops": 4.0}
    known = [{**spent, "precision": "fp32", "device": "cpu"}, {**spent, "precision": "bf16", "gpu_peak_mb": 70.0}, spent]
    found = [record(tmp_path, "a", seed, {"x": 50.0}, "x") for seed in range(3)]
    found = [dataclasses.replace(r, train=train, seeds=spent, cost=cost) for r, train in zip(found, known, strict=True)]
    header, (cells,) = costs([Row("a", "x", found)])
    assert cells[header.index("trained in")] == "bf16, fp32, unknown"
    assert cells[header.index("trained on")] == "cpu, unknown"
    assert cells[header.index("of a GPU, MB")] == "70"
    header, (cells,) = costs([Row("a", "x", found[:1])])
    assert cells[header.index("trained in")] == "fp32"
    assert cells[header.index("of a GPU, MB")] == ""


def test_differences_are_paired_by_seed(tmp_path):
    mine = [record(tmp_path, "a", s, {"x": v}, "x") for s, v in ((0, 50.0), (1, 60.0), (2, 90.0))]
    theirs = [record(tmp_path, "b", s, {"x": v, "y": 0.0}, "y") for s, v in ((2, 70.0), (0, 40.0), (1, 58.0))]
    gap = difference(Row("a", "x", mine), [Row("b", "y", theirs), Row("b", "x", theirs)], "miou_oracle")
    assert gap.pairs == 3
    assert gap.mean == pytest.approx((10 + 2 + 20) / 3)
    deviations = [10 - gap.mean, 2 - gap.mean, 20 - gap.mean]
    assert gap.error == pytest.approx(math.sqrt(sum(d * d for d in deviations) / 2 / 3))
    other = difference(Row("a", "x", mine[:1]), [Row("b", "y", theirs)], "miou_oracle")  # no such kind: its own
    assert (other.mean, other.error, other.pairs) == (50, None, 1)
    assert spread([3.0]) is None


def test_completeness_by_hand():
    truth = np.array([[1, 1, 1, 0], [1, 255, 2, 2]], np.uint8)
    label = np.array([[1, 1, 2, 1], [1, 1, 2, 1]], np.uint8)
    value = np.array([[0.9, 0.2, 0.9, 0.9], [0.5, 0.9, 0.6, 0.9]], np.float32)
    part = np.array([[True, False, False, False], [False] * 4])
    one, two = regions("p", value, label, truth, part)
    assert (one.class_id, one.pixels, one.size) == (1, 4, 4 / 7)
    assert one.completeness(0.4) == 2 / 4  # the third has the wrong class, the second too low a value
    assert one.completeness(0.1) == 3 / 4
    assert one.body_completeness(0.4) == 1 / 3
    assert two.completeness(0.6) == 1 / 2
    assert regions("p", value, label, truth, None)[0].body_completeness(0.4) is None


def test_condensed_by_hand():
    found = [{"size": s / 10, "completeness": s / 20, "body": None if s % 2 else 1.0} for s in (7, 6, 5, 4, 3, 2, 1)]
    means = condensed(found)
    assert means["covered"] == pytest.approx(0.2)
    assert means["body"] == 1.0
    assert len(means["groups"]) == 6
    assert means["groups"][0] == [pytest.approx(0.15), pytest.approx(0.075), 1.0]  # the two smallest
    assert means["groups"][-1] == [pytest.approx(0.7), pytest.approx(0.35), None]
    assert condensed(found[:5])["groups"] == []
    assert condensed([])["covered"] is None


def test_plots():
    assert plot([Series("none", [])], "x", "y") == ""
    drawn = plot([Series("a <b>", [(0, 1), (2, 3)]), Series("c", [(1, 2)])], "x", "y")
    assert "a &lt;b&gt;" in drawn
    assert drawn.count("<polyline") == 2
    assert completeness_plot([]) == ""
