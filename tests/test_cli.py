"""The command line: options over the config, and bad input that ends in one clear line, a status, and nothing lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from mupvss.cli.main import COMMANDS, main
from mupvss.cli.runs import run_arguments
from mupvss.config.load import load_config, save_config
from mupvss.config.schema import RunConfig
from mupvss.errors import ConfigError


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
         "--model.pem.blocks", "all", "--no-baseline", "--data.classes", "fish", "kite", "--limit", "3"], "mupvss run",
    )  # fmt: skip
    assert out == tmp_path / "o"
    assert (config.train.lr, config.search.scales, config.model.pem.blocks) == (0.5, (1.0, 0.5), "all")
    assert (config.baseline, config.data.classes, config.limit) == (False, ("fish", "kite"), 3)
    assert config.train.batch_size == 8  # from the file


def test_config_survives_a_round_trip(tiny_run, tmp_path):
    save_config(tmp_path / "x.toml", tiny_run)
    assert load_config(tmp_path / "x.toml") == tiny_run
    save_config(tmp_path / "x.toml", RunConfig())
    assert load_config(tmp_path / "x.toml") == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nlearning_rate = 1.0", r"unknown key 'train.learning_rate'"),
        ("[train]\nbatchsize = 1", r"did you mean 'batch_size'"),
        ("[modle]\n", r"unknown key 'modle'; did you mean 'model'"),
        ("[model.pem]\ngates = 'open'", r"did you mean 'gate'"),
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
        assert load_config(file).name


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
