"""Damaged and hostile files are refused with a message that names them; a short run of the fuzzer over every reader."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import info_of, network_of

from mupvss.config.load import load_config
from mupvss.data.masks import read_label_image
from mupvss.data.tags import read_tags
from mupvss.data.voc import read_split
from mupvss.errors import CheckpointError, ConfigError, DataError
from mupvss.methods.checkpoint import load_network, save_model
from mupvss.model.checkpoint import save_tensors
from mupvss.options import ViTConfig
from mupvss.search.seeds import read_seeds

FUZZER = Path(__file__).parent / "harness" / "fuzz.py"


NAMED = {"data": {"image": "a.jpg"}}
TASKS = [NAMED | {"annotations": ["x"]}, NAMED | {"annotations": 3}, {"image": "http://["}]


@pytest.mark.parametrize("task", [*TASKS, NAMED | {"annotations": [{"result": 5}]}, NAMED | {"predictions": [{"result": 5}]}])
def test_label_studio(tmp_path, task):
    (tmp_path / "t.json").write_text(json.dumps([task]))
    with pytest.raises(DataError, match=r"t\.json: task 1 "):
        read_tags(tmp_path / "t.json")


def test_split_list_of_another_encoding(tmp_path):
    (tmp_path / "train.txt").write_text("Ä\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"train\.txt: not UTF-8"):
        read_split(tmp_path / "train.txt")


CONFIGS = {
    "a=" + "[" * 4000: "not valid TOML",
    "a = " + "9" * 9000: "not valid TOML",
    "a." * 2000 + "b=1": "nested too deeply",
    "a = " + "[" * 60 + "]" * 60: "nested too deeply",
    "extends = ['c.toml']": "extends this file",
    "extends = 3": "expected a list of files",
    "extends = [1]": "expected a list",
}


@pytest.mark.parametrize(("text", "message"), CONFIGS.items(), ids=range(len(CONFIGS)))
def test_configs(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.toml: .*{message}"):
        load_config(tmp_path / "c.toml")


CHANGES = [{"stride": np.int32(0)}, {"stride": np.array([4, 4])}, {"size": np.array([6])}, {"size": np.array([-1, 7])}]
CHANGES += [{"ids": np.int16(1)}, {"maps": np.zeros((1, 2, 2), "U3")}, {"ids": np.array(["a"])}]
CHANGES += [{"size": np.array([6, None], object)}]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_seeds(tmp_path, change):
    whole = {
        "ids": np.array([1], np.int16),
        "maps": np.zeros((1, 2, 2), np.float16),
        "size": np.array([6, 7]),
        "stride": np.int32(4),
    }
    path = tmp_path / "s.npz"
    np.savez(path, **whole)
    assert read_seeds(path).size == (6, 7)
    np.savez(path, **whole | change)
    with pytest.raises(DataError, match=r"s\.npz"):
        read_seeds(path)


def test_a_mask_whose_header_promises_a_billion_pixels(tmp_path):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "m.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(DataError, match=r"m\.png: .*million pixels are read"):
        read_label_image(tmp_path / "m.png")


def test_seeds_in_a_strange_archive(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("ids.npy", b"x")
    (tmp_path / "s.npz").write_bytes(stream.getvalue().replace(b"\x0e\x00", b"\x63\x00"))  # a compression nobody knows
    with pytest.raises(DataError, match=r"s\.npz"):
        read_seeds(tmp_path / "s.npz")


def test_checkpoints(tmp_path):
    path = tmp_path / "m.safetensors"
    network, info = network_of("vit-cam", 2), info_of(("a", "b"), "vit-cam")
    save_model(path, network, info)
    load_network(path)
    described = info.header()
    changes = [{"classes": ["a"]}, {"classes": 3}, {"model": 3}, {"model": {"backbone": "huge"}}, {"model": {"patch_size": 16}}]
    changes += [{"method": 3}, {"method": "unknown"}, {"method": "os:system"}, {"options": 3}, {"options": {"ccp": 1.0}}]
    changes += [{"origins": [3]}, {"origins": [{"part": "backbone"}]}]
    for change in (*changes, {"model": ViTConfig(patch_size=10**9).model_dump(mode="json")}):
        save_tensors(path, network.state_dict(), described | change)
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            load_network(path)


@pytest.mark.slow
def test_a_short_run_of_the_fuzzer(tmp_path):
    pytest.importorskip("atheris")
    command = [sys.executable, str(FUZZER), "--inputs", "200", "--out", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert found.returncode == 0, found.stdout + found.stderr[-3000:]
    counted = [line.split("|")[2] for line in found.stdout.splitlines()[2:]]
    assert len(counted) == 17
    assert all(int(count) >= 187 for count in counted), found.stdout
