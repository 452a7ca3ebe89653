"""The command line: options over the config, and bad input that ends in one clear line, a status, and nothing lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from mupvss.cli.main import COMMANDS, FAULT, main
from mupvss.cli.runs import run_arguments
from mupvss.config.load import build, load_config, rows_of, save_config
from mupvss.errors import CheckpointError, ConfigError, UserError
from mupvss.methods import METHODS
from mupvss.methods.checkpoint import read_info
from mupvss.model.checkpoint import save_tensors
from mupvss.predict.run import FinishedRun
from mupvss.version import VERSION


@pytest.fixture
def config_file(tiny_run, tmp_path):
    save_config(tmp_path / "c.toml", tiny_run)
    return tmp_path / "c.toml"


def fails(capsys, *argv):
    """Runs a command that must fail and returns what it said, which must be one line."""
    assert main([str(a) for a in argv]) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(said)
    assert said[-1].startswith("error:")
    return said[-1]


def test_options_override_the_file(config_file, tmp_path):
    config, out = run_arguments(
        [str(config_file), "--out", str(tmp_path / "o"), "--train.lr", "0.5", "--search.scales", "1.0", "0.5",
         "--mupvss.pem.blocks", "all", "--no-baseline", "--data.classes", "fish", "kite", "--limit", "3"], "mupvss run",
    )  # fmt: skip
    assert out == tmp_path / "o"
    assert (config.train.lr, config.search.scales, config.mupvss.pem.blocks) == (0.5, (1.0, 0.5), "all")
    assert (config.baseline, config.data.classes, config.limit) == (False, ("fish", "kite"), 3)
    assert config.train.batch_size == 8  # from the file


def test_config_survives_a_round_trip(tiny_run, tmp_path):
    save_config(tmp_path / "x.toml", tiny_run)
    assert load_config(tmp_path / "x.toml") == tiny_run
    for method in METHODS:
        usual = build({"method": method})
        save_config(tmp_path / "x.toml", usual)
        assert load_config(tmp_path / "x.toml") == usual


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlearning_rate = 1.0", r"unknown key 'train.learning_rate'"),
        ("[train]\nbatchsize = 1", r"did you mean 'batch_size'"),
        ("[modle]\n", r"unknown key 'modle'; did you mean 'model'"),
        ("[mupvss.pem]\ngates = 'open'", r"did you mean 'gate'"),
        ("[train]\nlr = '1e-3'", r"train.lr is '1e-3'"),
        ("[train]\nbatch_size = 0", r"train.batch_size is 0"),
        ("seed = true", r"seed is True"),
        ("x = ", r"not valid TOML"),
    ],
)
def test_bad_configs(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "c.toml")


def test_shipped_configs_are_valid(request):
    files = sorted((request.config.rootpath / "configs").glob("*.toml"))
    assert {f.stem for f in files} >= {"scenes", "voc-animals", "paper-literal"}
    for file in files:
        for row in rows_of(file) or [None]:
            load_config(file if row is None else file.with_name(f"{file.name}:{row}"))


def test_presets_go_with_the_package(request):
    assert load_config(Path("scenes")) == load_config(request.config.rootpath / "configs" / "scenes.toml")
    with pytest.raises(ConfigError, match="no such config"):
        load_config(Path("scenery"))


def test_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main([]) == 2
    assert "did you mean 'run'" in fails(capsys, "rum")
    assert "no such config" in fails(capsys, "run", "nowhere.toml")
    assert "needs a config" in fails(capsys, "run")


def test_corrupt_picture(config_file, picture_folder, capsys, tmp_path):
    (picture_folder / "cat" / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    said = fails(capsys, "run", config_file, "--out", tmp_path / "o", "--data.source", "folder", "--data.root", picture_folder)
    assert "cat/1.jpg" in said
    assert "cannot be read as a picture" in said


def test_empty_table(config_file, picture_folder, capsys, tmp_path):
    (tmp_path / "t.csv").write_text("")
    said = fails(
        capsys, "run", config_file, "--out", tmp_path / "o", "--data.source", "folder", "--data.root", picture_folder,
        "--data.tags", tmp_path / "t.csv",
    )  # fmt: skip
    assert "t.csv" in said


def test_no_class_in_common_and_no_picture(config_file, picture_folder, capsys, tmp_path):
    options = ["run", config_file, "--out", tmp_path / "o", "--data.source", "folder", "--data.root"]
    assert "no picture has any of data.classes" in fails(capsys, *options, picture_folder, "--data.classes", "zebra")
    (tmp_path / "empty").mkdir()
    assert "no picture in a folder per tag" in fails(capsys, *options, tmp_path / "empty")


def test_unknown_tag(config_file, voc_root, capsys, tmp_path):
    (tmp_path / "t.csv").write_text("image,tags\na,doog\nb,\nc,\n")
    said = fails(
        capsys, "run", config_file, "--out", tmp_path / "o", "--data.source", "voc", "--data.root", voc_root,
        "--data.tags", tmp_path / "t.csv",
    )  # fmt: skip
    assert "'doog'" in said


def test_wrong_checkpoints(config_file, capsys, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"torn")
    options = ["run", config_file, "--out", tmp_path / "o", "--model.weights"]
    assert "w.safetensors" in fails(capsys, *options, tmp_path / "w.safetensors")
    assert "no such weights" in fails(capsys, *options, tmp_path / "absent.safetensors")
    assert "no such checkpoint" in fails(capsys, "seeds", config_file, "--out", tmp_path / "never")


def test_unknown_backbone(config_file, capsys, tmp_path):
    said = fails(capsys, "run", config_file, "--out", tmp_path / "o", "--model.backbone", "resnet")
    assert "micro, tiny, small, base" in said


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="a small disk can be mounted by root only")
def test_a_disk_that_is_really_full(config_file, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a small disk")
    try:
        said = fails(capsys, "run", config_file, "--out", disk / "o")
        assert "model.safetensors" in said or "state.safetensors" in said
        assert not list(disk.rglob("*.part*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_folder_of_pictures_end_to_end(config_file, picture_folder, tmp_path):
    options = ["--data.source", "folder", "--data.root", str(picture_folder), "--no-baseline"]
    assert main(["run", str(config_file), "--out", str(tmp_path / "o"), *options]) == 0
    masks = sorted(path.name for path in (tmp_path / "o" / "seeds" / "masks").iterdir())
    assert masks == ["cat__1.png", "cat__2.png", "dog__3.png", "none__4.png"]
    with Image.open(tmp_path / "o" / "seeds" / "masks" / "cat__1.png") as mask:
        assert mask.size == (40, 48)


def test_hashed_requirements_are_the_pinned_ones(request):
    def canonical(name):
        return re.sub("[-_.]+", "-", name).lower()

    def versions(text):
        return {canonical(name): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)}

    root = request.config.rootpath
    text = (root / "requirements-hashed.txt").read_text()
    pinned, hashed = versions((root / "constraints.txt").read_text()), versions(text)
    assert len(hashed) > 60
    assert all(pinned.get(name, version) == version for name, version in hashed.items())
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\w)", text)[1:])
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [names for extra, names in project["optional-dependencies"].items() if extra not in ("dev", "docs")]
    asked = [one for group in (project["dependencies"], *extras) for one in group]
    missing = {canonical(re.match(r"[\w.-]+", one).group()) for one in asked} - hashed.keys()
    assert not missing, "run make lock"


def test_every_package_is_installed(request):
    root = request.config.rootpath
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(root).parts) for path in (root / "mupvss").rglob("__init__.py")}
    assert listed - {"mupvss.presets"} == found


def test_a_fault_of_ours_is_shown_whole_and_asks_for_a_report(config_file, tmp_path, monkeypatch, capsys):
    """Not dressed as the user's, not even where Python's own classes are those of bad input."""
    for fault in (ValueError("not enough values to unpack"), KeyError("x"), OSError("without a number"), AssertionError()):

        def broken(*_, fault=fault):
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", broken)
            patch.setattr(Image, "fromarray", broken)
            assert main(["train", str(config_file), "--out", str(tmp_path / "o"), "--train.image-steps", "8"]) == FAULT
        said = capsys.readouterr().err
        for part in ("Traceback", type(fault).__name__, "Please report it", f"mupvss {VERSION}, Python {sys.version.split()[0]}"):
            assert part in said
        assert f"mupvss train {config_file} --out" in said


@pytest.mark.parametrize("how", ["switch", "variable"])
def test_the_traceback_of_the_users_own_errors_on_request(how, monkeypatch, capsys):
    assert main(["run", "nowhere.toml"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    if how == "variable":
        monkeypatch.setenv("MUPVSS_TRACEBACK", "1")
    assert main(["run", "nowhere.toml", *(["--traceback"] if how == "switch" else [])]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.strip().splitlines()[-1].startswith("error: nowhere.toml: no such config")


def test_what_the_user_can_mend_has_one_base():
    import mupvss.errors as module

    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {kind.__name__ for kind in found if not issubclass(kind, UserError)} == {"OutOfMemoryError"}


def test_options_of_another_choice_are_refused_with_the_place_they_belong_to(tmp_path):
    """Nothing is accepted and then ignored."""
    for text, message in (
        ("[affinity]\nkind = 'none'\ncrop = 32", "'affinity.crop' is an option of affinity.kind = 'head' or 'net'"),
        ("[segment]\nchannels = 0.5", "'segment.channels' is an option of segment.network = 'resnet38'"),
        ("[data]\ncrowd = 'class'", "'data.crowd' is an option of data.source = 'coco'"),
        ("[affinity.train]\ncrop_area = [0.5, 1.0]", ""),
        ("[affinity]\nkind = 'patch'", "affinity.kind is 'patch'; choose one of none, head, net"),
        ("method = 'vit-cam'\n[mupvss]\nccp = 0.5", ""),
    ):
        (tmp_path / "c.toml").write_text(text)
        if message:
            with pytest.raises(ConfigError, match=re.escape(message)):
                load_config(tmp_path / "c.toml")
        else:
            load_config(tmp_path / "c.toml")


def test_options_of_version_0_1_0_that_are_no_more(tmp_path):
    """Where they say what is done anyway they are taken, and otherwise refused by name."""
    (tmp_path / "c.toml").write_text("[train]\nbrightness = 0.3\n[losses]\nccp = 0.5\n[model]\nmethod = 'mupvss'")
    assert load_config(tmp_path / "c.toml").options.ccp == 0.5
    (tmp_path / "c.toml").write_text("[train]\nbrightness = 0.9")
    with pytest.raises(ConfigError, match=r"brightness is 0\.9, but this option was removed, and its value is always 0\.3"):
        load_config(tmp_path / "c.toml")


def config_of(tmp_path, text, name="c.toml"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_layers_keep_what_still_fits_and_tell_of_what_nothing_knows(tmp_path):
    over = config_of(tmp_path, "method = 'cnn-cam'\n[model]\nbackbone = 'resnet38'", "over.toml")
    base = config_of(tmp_path, "[affinity]\nkind = 'net'\ncrop = 448\n[segment]\nnetwork = 'resnet38'\nsize = 0", "base.toml")
    found = load_config(over, base)
    assert (found.affinity.kind, found.affinity.crop, found.segment.size) == ("net", 448, 0)
    base = config_of(tmp_path, "[affinity]\nkind = 'head'\ncrop = 32\n[segment]\ncrop = 32\npresence = 0.0", "base.toml")
    found = load_config(over, base)
    assert (found.affinity.kind, found.segment.network, found.segment.crop) == ("none", "resnet38", 32)
    none = config_of(tmp_path, "method = 'cnn-cam'\n[affinity]\nkind = 'none'", "none.toml")
    assert load_config(config_of(tmp_path, "method = 'mupvss'"), none).affinity.kind == "none"
    typos = config_of(tmp_path, "[affinity]\nkind = 'net'\nchanels = 0.5\n[model]\nregister = 2", "typos.toml")
    for top in ("[affinity]\nkind = 'head'", "method = 'cnn-cam'", "seed = 1"):
        with pytest.raises(ConfigError, match=r"affinity\.chanels"):
            load_config(config_of(tmp_path, top), typos)


def test_of_several_the_last_and_rows_have_folders_of_their_own(config_file, request):
    base = ["--base", str(config_file)]
    config, _ = run_arguments([str(config_file), "--method", "cnn-cam", "--method=vit-cam", "--seed", "1", "--seed", "2"], "x")
    assert (config.method, config.seed, type(config.model).__name__) == ("vit-cam", 2, "ViTConfig")
    table = request.config.rootpath / "configs" / "ablations.toml"
    names = [run_arguments([f"{table}:{row}", *base], "x")[1].name for row in ("ge", "pem")]
    assert names == ["ablations-ge", "ablations-pem"]


def test_a_folder_of_a_presets_name_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "coco").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("coco")).data.source == "coco"


def test_names_that_there_are_not_are_told_before_anything_is_trained(config_file, tmp_path, capsys):
    for option, name in (("--search.maps", "prototype"), ("--search.kinds", "x"), ("--masks.crf", "pas"), ("--segment.crf", "x")):
        said = fails(capsys, "run", config_file, "--out", tmp_path / "o", option, name)
        assert option[2:] in said
    assert not (tmp_path / "o").exists()


def test_layers_of_version_0_1_0(tmp_path):
    """What one file said in the other's words."""
    config_of(tmp_path, "[model]\nmethod = 'cam'\nbackbone = 'resnet38'", "cam.toml")
    assert load_config(config_of(tmp_path, "extends = ['cam.toml']\n[model]\nrecam = true")).method == "recam"
    config_of(tmp_path, "[model]\nmethod = 'mctformer'", "mct.toml")
    assert load_config(config_of(tmp_path, "extends = ['mct.toml']\n[model]\nattention_skip = 0.0")).options.attention_skip == 0
    for text in ("losses = 3", "[model]\nmethod = ['x']", "mupvss = 3\n[losses]\nccp = 1.0", "search = 3"):
        with pytest.raises(ConfigError):
            load_config(config_of(tmp_path, text))


@pytest.mark.parametrize("where", ["run", "checkpoint"])
def test_no_file_of_others_has_a_module_imported(tmp_path, where, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    if where == "run":
        (tmp_path / "run" / "train").mkdir(parents=True)
        config_of(tmp_path / "run" / "train", "method = 'evil:X'", "config.toml")
        with pytest.raises(ConfigError, match="MUPVSS_METHODS=evil"):
            FinishedRun(tmp_path / "run").config()
    else:
        save_tensors(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, {"classes": ["a"], "model": {"method": "evil:X"}})
        with pytest.raises(CheckpointError, match="MUPVSS_METHODS=evil"):
            read_info(tmp_path / "m.safetensors")
    assert not (tmp_path / "ran").exists()
