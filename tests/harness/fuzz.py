"""Feeds every reader of users' files with damaged ones: each must be read, or refused with a message that names the file.

    python tests/harness/fuzz.py --inputs 100000 python tests/harness/fuzz.py --inputs 5000 --only csv seeds

Each reader runs in a process of its own under atheris (libFuzzer), from valid examples, guided by the branches of our readers.
Half of the inputs are bytes, changed anyhow; in the other half a value somewhere in a valid document is exchanged, so that what
comes after the syntax is reached too. Anything but our own errors ends the process and is kept under --out.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACE = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
WEIRD = [None, True, -1, 0, 1e308, 10**30, "", "x" * 3000, "../a.jpg", "/etc/passwd", "\0", "[", "http://[", "a\nb", [], {}, [[]],
         {"a": 1}, [None], -0.5, "nan", "\uff11", 2**31, 2**63, {"size": [1, 1]}, [1, "a", None]]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    suffix: str
    read: Callable[[Path], Any]
    examples: list[bytes]
    documents: list[Any]
    """Valid documents in which values are exchanged."""
    write: Callable[[Any], bytes] | None = None


def readers() -> dict[str, Callable[[], Reader]]:
    return {
        "csv": _csv,
        "jsonl": _jsonl,
        "toml": _toml,
        "coco-tags": _coco_tags,
        "coco-index": _coco_index,
        "label-studio": _label_studio,
        "voc-xml": _voc_xml,
        "cvat-xml": _cvat,
        "split-list": _split_list,
        "checkpoint": _checkpoint,
        "weights": _weights,
        "seeds": _seeds,
        "npy": _npy,
        "mask-png": _mask_png,
        "picture": _picture,
        "archive": _archive,
        "record": _record,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _lines(value: Any) -> bytes:
    return "\n".join(json.dumps(entry) for entry in value).encode() if isinstance(value, list) else _json(value)


def _csv() -> Reader:
    from mupvss.data.tags import read_tags

    rows = [["image", "tags"], ["a.jpg", "cat|dog"], ["b.jpg", ""]]

    def write(value: Any) -> bytes:
        rows = value if isinstance(value, list) else [value]
        return "\n".join(",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows).encode()

    return Reader(".csv", read_tags, [write(rows), b'image,tags\n"a,b.jpg","x;y"\n'], [rows], write)


def _jsonl() -> Reader:
    from mupvss.data.tags import read_tags

    rows = [{"image": "a.jpg", "tags": ["cat", "dog"]}, {"file": "b.jpg", "label": "cat"}]
    return Reader(".jsonl", read_tags, [_lines(rows)], [rows], _lines)


def _toml() -> Reader:
    import tomli_w

    from mupvss.config.load import load_config
    from mupvss.config.run import RunConfig

    whole = RunConfig().model_dump(mode="json", exclude_none=True, include={"seed", "train", "limit"})

    def write(value: Any) -> bytes:
        try:
            return tomli_w.dumps(value).encode()
        except Exception:
            return str(value).encode()

    return Reader(".toml", load_config, [b'extends = ["x.toml"]\nname = "a"\n[train]\nlr = 0.1\n'], [whole], write)


def _coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 8, "height": 6},
            {"id": 2, "file_name": "b.jpg", "width": 3, "height": 3},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [[0, 0, 5, 0, 5, 5], [1, 1, 2, 2, 3, 1, 4, 4]],
            },
            {"id": 2, "image_id": 1, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [3, 5, 40]}},
            {"id": 3, "image_id": 2, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [3, 3], "counts": "36"}},
        ],
    }


def _coco_tags() -> Reader:
    from mupvss.data.tags import read_tags

    return Reader(".json", read_tags, [_json(_coco())], [_coco()], _json)


def _coco_index() -> Reader:
    from mupvss.data.coco.index import CocoIndex, build_index
    from mupvss.data.coco.source import paint

    def read(path: Path) -> None:
        target = path.with_suffix(".sqlite")
        target.unlink(missing_ok=True)
        build_index(path, target)
        index = CocoIndex(target)
        for place in range(len(index)):
            entry = index.entry(place)
            if entry.width * entry.height < 10_000:
                ids = dict.fromkeys(index.categories(), 1)
                paint(index.annotations(entry.image), (entry.height, entry.width), ids, False, f"{path}: {entry.file_name}")

    return Reader(".json", read, [_json(_coco())], [_coco()], _json)


def _label_studio() -> Reader:
    from mupvss.data.tags import read_tags

    result = {"value": {"polygonlabels": ["cat"], "points": [[1, 2]]}, "type": "x"}
    tasks = [
        {"data": {"image": "/data/local-files/?d=a.jpg"}, "annotations": [{"result": [result, {"value": {"choices": ["dog"]}}]}]},
        {"data": {"img": "b.jpg"}, "annotations": [{"was_cancelled": True, "result": []}], "predictions": [{"result": [result]}]},
        {"image": "https://host/c%20d.jpg", "id": 2, "label": [{"rectanglelabels": ["cat"], "x": 1}], "choice": "dog"},
    ]
    return Reader(".json", read_tags, [_json(tasks)], [tasks], _json)


def _as_xml(value: Any, name: str = "annotation") -> str:
    if isinstance(value, dict):
        attributes = " ".join(f'{key[1:]}="{entry}"' for key, entry in value.items() if key.startswith("@"))
        inner = "".join(_as_xml(entry, key) for key, entry in value.items() if not key.startswith("@"))
        return f"<{name} {attributes}>{inner}</{name}>"
    if isinstance(value, list):
        return "".join(_as_xml(entry, name) for entry in value)
    return f"<{name}>{value}</{name}>"


def _voc_xml() -> Reader:
    from mupvss.data.tags.exports import read_annotation

    whole = {"filename": "a.jpg", "object": [{"name": "dog", "bndbox": {"xmin": 1}}, {"name": "cat"}]}
    doctype = b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><annotation><object><name>&d;</name></object></annotation>'
    return Reader(".xml", read_annotation, [_as_xml(whole).encode(), doctype], [whole], lambda value: _as_xml(value).encode())


def _cvat() -> Reader:
    from mupvss.data.tags import read_tags

    whole = {"image": [{"@name": "a.jpg", "box": {"@label": "cat"}, "mask": {"@rle": "1, 2"}}, {"@name": "b.jpg"}]}
    written = _as_xml(whole, "annotations").encode()
    return Reader(".xml", read_tags, [written], [whole], lambda value: _as_xml(value, "annotations").encode())


def _split_list() -> Reader:
    from mupvss.data.voc import read_split

    return Reader(".txt", read_split, [b"2008_000001\n2008_000002 1\n\n", "Ä\n".encode("utf-16")], [])


def _checkpoint() -> Reader:
    import torch

    from mupvss.methods.checkpoint import ModelInfo, load_network, save_model
    from mupvss.methods.method import NoOptions
    from mupvss.methods.vit_cam import VIT_CAM
    from mupvss.options import ViTConfig

    model = ViTConfig(backbone="micro", patch_size=8, image_size=16)
    torch.manual_seed(0)
    info = ModelInfo(("a",), VIT_CAM, model, NoOptions(), VIT_CAM.name)
    network = info.build()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, network, info)
        whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["mupvss"] = json.loads(header["__metadata__"]["mupvss"])

    def write(value: Any) -> bytes:
        if isinstance(value, dict) and isinstance(value.get("__metadata__"), dict):
            metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in value["__metadata__"].items()}
            value = value | {"__metadata__": metadata}
        text = json.dumps(value).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :]

    return Reader(".safetensors", load_network, [whole[:3000], whole[: length + 100]], [header], write)


def _weights() -> Reader:
    import torch

    from mupvss.model.pretrained import read_state

    stream = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(3)}}, stream)
    hostile = b"cos\nsystem\n(S'echo x'\ntR."
    return Reader(".pth", read_state, [stream.getvalue(), hostile, b"\x80\x02}q\x00."], [])


def _arrays(value: Any) -> bytes:
    import numpy as np

    stream = io.BytesIO()
    try:
        np.savez(stream, **{key: np.array(entry, dtype=TYPES.get(key)) for key, entry in value.items()})
    except Exception:
        return _json(value)
    return stream.getvalue()


TYPES = {"ids": "int16", "maps": "float16", "size": "int32", "stride": "int32"}


def _seeds() -> Reader:
    from mupvss.search.seeds import read_seeds

    def read(path: Path) -> None:
        seeds = read_seeds(path)
        if seeds.size[0] * seeds.size[1] < 1_000_000:
            seeds.best()

    whole = {"ids": [1, 3], "maps": [[[0.1, 0.2], [0.3, 1.0]], [[0.5, 0.5], [0.0, 0.0]]], "size": [6, 7], "stride": 4}
    return Reader(".npz", read, [_arrays(whole)], [whole], _arrays)


def _npy() -> Reader:
    """Dictionaries of maps, as other projects keep them: pickles that are walked and never loaded."""
    import numpy as np
    import torch

    from mupvss.data.pickled import read_npy

    def write(value: Any) -> bytes:
        stream, whole = io.BytesIO(), np.empty((), object)
        whole[()] = value
        np.save(stream, whole, allow_pickle=True)
        return stream.getvalue()

    maps = {0: np.ones((2, 3), np.float32), 3: np.zeros((2, 3), np.float16)}
    irn = {"keys": torch.tensor([0, 3]), "cam": torch.ones(2, 1, 1), "high_res": np.ones((2, 2, 3))}
    plain = {"0": [[0.1, 0.2]], "keys": [1, 2], "cam": {"a": 0.5}}
    return Reader(".npy", read_npy, [write(maps), write(irn), write(plain)], [plain], write)


def _pictures(kinds: list[str], mode: str) -> list[bytes]:
    from PIL import Image

    found = []
    for kind in kinds:
        stream = io.BytesIO()
        Image.effect_mandelbrot((9, 7), (-2, -1, 1, 1), 9).convert(mode).save(stream, kind)
        found.append(stream.getvalue())
    return found


def _mask_png() -> Reader:
    from mupvss.data.masks import read_label_image

    return Reader(".png", read_label_image, [*_pictures(["PNG"], "P"), *_pictures(["PNG"], "L"), *_pictures(["PNG"], "RGB")], [])


def _picture() -> Reader:
    from mupvss.data.images import read_image

    examples = _pictures(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"], "RGB") + _pictures(["TIFF", "JPEG"], "CMYK")
    return Reader(".jpg", read_image, examples + _pictures(["PNG"], "RGBA") + _pictures(["PNG"], "I;16"), [])


def _archive() -> Reader:
    from mupvss.data.download.unpack import unpack

    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("a/b.txt", "x" * 50)
    with tarfile.open(fileobj=tarred, mode="w:gz") as file:
        info = tarfile.TarInfo("a/b.txt")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))

    def read(path: Path) -> None:
        out = path.parent / "out"
        unpack(path, out)
        known = (out, path, path.parent / "counts")
        outside = [p for p in path.parent.iterdir() if p not in known and not p.name.startswith("input")]
        assert not outside, outside

    return Reader(".bin", read, [zipped.getvalue(), tarred.getvalue()], [])


def _record() -> Reader:
    from mupvss.compare.figures import completeness_plot, learning_curve
    from mupvss.compare.plan import Entry, Pictures
    from mupvss.compare.results import Record, read_figures, rows
    from mupvss.compare.tables import costs, headline, per_class
    from mupvss.config.run import RunConfig
    from mupvss.stages.run_folder import Run

    completeness = {"covered": 0.5, "body": None, "groups": [[0.1, 0.5, None]]}
    scores = {"miou": 50.0, "miou_oracle": 51.0, "iou": [50.0, None], "iou_oracle": [51.0, 50.0], "completeness": completeness}
    whole = {
        "identity": ["a", "b"],
        "maps": "attended_search_refined",
        "kinds": {
            "attended_search_refined": scores,
            "search_refined": {"completeness": completeness | {"covered": None, "groups": []}},
        },
        "train": {"seconds": 1.0, "peak_mb": 2},
        "seeds": {"seconds": 1.5, "peak_mb": 2.0},
        "cost": {"parameters": 5, "gflops": 2.5},
        "curve": [{"image_steps": 16, "attended_search_refined": {"miou": 40.0, "oracle": 41.0}}],
        "curve_pictures": 4,
    }

    entry = Entry("a", 0, Run(RunConfig(), Path("a")), Pictures(RunConfig().data, None, Path("a")))

    def read(path: Path) -> None:
        figures = read_figures(path, ["a", "b"], 1)
        if figures is not None:  # what passes can be tabled and drawn
            record = Record(entry, **figures)
            found = rows([record])
            for table in (headline(found, "a"), per_class(found, ("cat",)), costs(found)):
                assert table[1]
            completeness_plot(found)
            learning_curve([record])

    return Reader(".json", read, [_json(whole)], [whole], _json)


def exchanged(document: Any, rng: random.Random) -> Any:
    """A copy in which one to three values, at any depth, are others, are missing or stand twice."""
    found = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(found))
        if not places:
            break
        holder, key = rng.choice(places)
        way = rng.random()
        if way < 0.15:
            del holder[key]
        elif way < 0.25 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif way < 0.35:
            holder[key] = copy.deepcopy(rng.choice(places)[0])
        else:
            holder[key] = copy.deepcopy(rng.choice(WEIRD))
    return found


def _places(value: Any, depth: int = 0) -> Any:
    if depth > 8:
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key], depth + 1)


def fuzz_one(name: str, inputs: int, seed: int, out: Path) -> None:
    """In this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["mupvss.data", "mupvss.config", "mupvss.search.seeds", "mupvss.compare"]):
        reader = readers()[name]()
    from mupvss.errors import CheckpointError, ConfigError, DataError, DownloadError, WeightsError

    folder = Path(os.environ["FUZZ_FOLDER"])
    path = folder / f"input{reader.suffix}"
    counts = {"read": 0, "refused": 0}
    report = os.open(folder / "counts", os.O_WRONLY | os.O_CREAT)  # libFuzzer leaves without telling anyone

    def test(data: bytes) -> None:
        content = data
        if reader.documents and reader.write is not None and len(data) > 1 and data[0] % 2:
            rng = random.Random(data)
            try:
                content = reader.write(exchanged(rng.choice(reader.documents), rng))
            except (TypeError, ValueError, RecursionError):  # our own writer cannot write it
                return
        path.write_bytes(content)
        try:
            reader.read(path)
            counts["read"] += 1
        except (DataError, ConfigError, CheckpointError, WeightsError, DownloadError) as error:
            if path.name not in str(error):
                raise RuntimeError("the message does not name the file") from error
            counts["refused"] += 1
        except BaseException:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{name}{reader.suffix}").write_bytes(content)
            raise
        finally:
            os.pwrite(report, json.dumps(counts).encode().ljust(80), 0)

    corpus = folder / "input-corpus"
    corpus.mkdir()
    for number, example in enumerate(reader.examples):
        (corpus / str(number)).write_bytes(example)
        (corpus / f"odd-{number}").write_bytes(b"\x01" + example[:50])
    options = [f"-runs={inputs}", f"-seed={seed + 1}", "-max_len=4096", "-timeout=120", "-rss_limit_mb=4096", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], test)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="for each reader")
    parser.add_argument("--only", nargs="*", default=[], choices=list(readers()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where inputs that broke a reader are kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_one(options.one, options.inputs, options.seed, options.out)
        return 0
    print("| reader | inputs | read | refused | broken | inputs/s |\n|---|---|---|---|---|---|", flush=True)
    broken = 0
    for name in options.only or readers():
        begin = time.monotonic()
        command = [sys.executable, __file__, "--one", name, "--inputs", str(options.inputs), "--seed", str(options.seed)]
        with tempfile.TemporaryDirectory(dir=PLACE) as folder:
            command += ["--out", str(options.out)]
            environment = {**os.environ, "FUZZ_FOLDER": folder}
            found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
            counts = json.loads((Path(folder) / "counts").read_text())
        total, failed = sum(counts.values()), found.returncode != 0
        broken += failed
        rate = total / (time.monotonic() - begin)
        print(f"| {name} | {total} | {counts['read']} | {counts['refused']} | {int(failed)} | {rate:.0f} |", flush=True)
        if failed:
            print("\n".join(found.stderr.splitlines()[-30:]), file=sys.stderr, flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
