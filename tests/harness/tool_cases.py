"""Writes files as labelling tools and spreadsheets write them, with random content, and what the tool's own reader finds.

    python tests/harness/tool_cases.py FORMAT OUT --files 2000 --seed 0

Run it with the Python of an environment that has the tool (see `meanings.py`); it needs nothing of this project. OUT/NUMBER
holds the pictures and the file; each line of OUT/expected.jsonl has the file, the tags by picture, and the options for reading
it. Cases whose meaning the file does not tell are avoided: columns of Label Studio's CSV whose kind only the project's settings
tell are named by --tag-columns; a picture without a Pascal VOC file does not count as one without a tag.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import io
import json
import random
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

WORDS = (
    """
hen,goat,Rind,rust,TV/monitor,N°1,chien,собака,犬,नमस्ते,a&b,x<y,it's,Schäferhund,type-2,100%,label,image,nothing,0,12,id,Kuh rot
healthy leaf,so "called",no entry,e\u0301te,[old] barn
""".strip()
    .replace("\n", ",")
    .split(",")
)
PLACES = ["", "", "", "north/", "south/", "a b/", "deep/er/"]
STEMS = ["1", "0001", "IMG_0001", "scan.edited", "v1.2", "Hühner", "犬", "a+b", "a&b", "50%", "x#1", "it's", "[1]", "DSC 12"]
SUFFIXES = [".jpg", ".jpg", ".jpg", ".png", ".JPG", ".jpeg"]


class Case:
    """One folder with pictures and a file about them."""

    def __init__(self, folder: Path, rng: random.Random, template: Path, plain: bool = False) -> None:
        self.folder, self.rng, self.plain = folder, rng, plain
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "pictures").mkdir(parents=True)
        self.pictures = self._pictures(template)
        self.classes = rng.sample(WORDS, rng.randint(1, 5))
        self.tags = {name: self._some_tags() for name in self.pictures}

    def _some_tags(self) -> list[str]:
        return sorted(self.rng.sample(self.classes, min(len(self.classes), self.rng.choice([0, 1, 1, 1, 2, 3]))))

    def _pictures(self, template: Path) -> list[str]:
        found: dict[str, None] = {}
        for _ in range(self.rng.randint(1, 6)):
            place = "" if self.plain else self.rng.choice(PLACES)
            name = f"{place}{self.rng.choice(STEMS)}{self.rng.choice(SUFFIXES)}"
            if not any(name.rsplit(".", 1)[0].lower() == other.rsplit(".", 1)[0].lower() for other in found):
                found[name] = None
        for name in found:
            path = self.folder / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(template.with_suffix(".png" if name.endswith(".png") else ".jpg"))
        return list(found)


Expected = tuple[str, dict[str, list[str]], dict[str, Any]]
"""The file, the tags by picture, options of our reader."""


# Label Studio --------------------------------------------------------------------------------------------------------

CONTROLS = {
    "Choices": ("choices", "Choice"),
    "RectangleLabels": ("rectanglelabels", "Label"),
    "PolygonLabels": ("polygonlabels", "Label"),
    "BrushLabels": ("brushlabels", "Label"),
    "KeyPointLabels": ("keypointlabels", "Label"),
    "EllipseLabels": ("ellipselabels", "Label"),
    "Taxonomy": ("taxonomy", "Choice"),
}


def label_studio(case: Case, short: str | None) -> Expected:
    """short: None for the full JSON, else JSON_MIN or CSV, which the converter writes."""
    from label_studio_sdk.converter import Converter

    rng = case.rng
    controls = {f"control{i}" if rng.random() < 0.5 else rng.choice(["label", "animal", "kind", "what"]) + str(i): kind
                for i, kind in enumerate(rng.sample(list(CONTROLS), rng.randint(1, 3)))}  # fmt: skip
    comment = short is None and rng.random() < 0.4
    config = "".join(_control(name, kind, case.classes) for name, kind in controls.items())
    config += '<TextArea name="comment" toName="img"/>' if comment else ""
    config = f'<View><Image name="img" value="$picture"/>{config}</View>'
    key = rng.choice(["image", "picture", "img", "captioning", "url"])
    address = rng.choice([_local, _local_windows, _upload, _cloud, _plain_path, _served])
    tasks = [_task(case, number, name, key, address, controls, comment) for number, name in enumerate(case.pictures, 1)]
    if rng.random() < 0.5:
        for task in tasks:
            task["data"]["source"] = "camera 3"
    whole = case.folder / "export.json"
    whole.write_text(json.dumps(tasks, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
    converter = Converter(config.replace("$picture", f"${key}"), None, download_resources=False)
    expected: dict[str, list[str]] = {}
    by_id = {task["id"]: case.pictures[task["id"] - 1] for task in tasks}
    for item in converter.iter_from_json_file(str(whole)):
        if item["annotation_id"] is None:
            continue  # nobody has annotated it
        found = set(expected.get(by_id[item["id"]], []))
        for name, values in item["output"].items():
            if name != "comment":
                found |= {word for value in values for word in _ls_words(value)}
        expected[by_id[item["id"]]] = sorted(found)
    options: dict[str, Any] = {}
    if short is not None:
        from label_studio_sdk.converter.converter import Format

        out = case.folder / "converted"
        converter.convert(str(whole), str(out), Format.from_string(short), is_dir=False)
        whole = next(path for path in out.iterdir())
        if short == "CSV":
            header = next(csv.reader(whole.open(encoding="utf-8", newline="")))
            named = [name for name in controls if name in header]
            if named and (len(set(header) - OF_THE_TOOL) - 1 > 1 or rng.random() < 0.3):
                options["tag_columns"] = named
            elif "source" in header and not named:
                raise ValueError("which of its columns are results cannot be told")
    return str(whole.relative_to(case.folder)), expected, options


OF_THE_TOOL = {"annotation_id", "annotator", "created_at", "id", "lead_time", "updated_at"}


def _ls_words(value: dict[str, Any]) -> Iterator[str]:
    for key, part in value.items():
        if key == "taxonomy":
            yield from (path[-1] for path in part)
        elif key in ("choices",) or key.endswith("labels"):
            yield from part


def _control(name: str, kind: str, classes: list[str]) -> str:
    from xml.sax.saxutils import quoteattr

    inner = "".join(f"<{CONTROLS[kind][1]} value={quoteattr(c)}/>" for c in classes)
    more = ' choice="multiple"' if kind == "Choices" else ""
    return f'<{kind} name="{name}" toName="img"{more}>{inner}</{kind}>'


def _task(
    case: Case, number: int, name: str, key: str, address: Callable[[Case, str], str], controls: dict[str, str], comment: bool
) -> dict[str, Any]:
    rng = case.rng

    def annotation(cancelled: bool) -> dict[str, Any]:
        results = []
        for word in case.tags[name]:
            control = rng.choice(list(controls))
            kind = controls[control]
            words = [["animal", word]] if kind == "Taxonomy" else [word]
            value = {CONTROLS[kind][0]: words}
            if kind not in ("Choices", "Taxonomy"):
                value |= {"x": 1.5, "y": 2, "width": 30, "height": 20, "rotation": 0}
            size = {"original_width": 4, "original_height": 4, "image_rotation": 0, "origin": "manual"}
            about = {"id": f"r{len(results)}", "type": CONTROLS[kind][0], "from_name": control, "to_name": "img"}
            results.append({**about, **size, "value": value})
        if comment and rng.random() < 0.5:
            results.append(
                {"id": "c", "type": "textarea", "from_name": "comment", "to_name": "img", "value": {"text": ["hen? or goat"]}}
            )
        if rng.random() < 0.2:
            results.append({"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right", "labels": ["near"]})
        return {"id": number * 10, "completed_by": 1, "result": results, "was_cancelled": cancelled, "ground_truth": False,
                "created_at": "2024-02-03T10:00:00Z", "updated_at": "2024-02-03T10:00:00Z", "lead_time": 4.1}  # fmt: skip

    kind = rng.choice(["done", "done", "done", "twice", "skipped", "new", "skipped and done"])
    entries = {"done": [False], "twice": [False, False], "skipped": [True], "new": [], "skipped and done": [True, False]}[kind]
    return {"id": number, "data": {key: address(case, name)}, "annotations": [annotation(c) for c in entries], "predictions": [],
            "drafts": [], "meta": {}, "total_annotations": 1}  # fmt: skip


def _local(case: Case, name: str) -> str:
    from urllib.parse import quote

    return f"/data/local-files/?d={quote(name)}"


def _local_windows(case: Case, name: str) -> str:
    from urllib.parse import quote

    return "/data/local-files/?d=" + quote(name.replace("/", "\\"))


def _upload(case: Case, name: str) -> str:
    """An upload has no folder."""
    base = name.rsplit("/", 1)[-1]
    alone = sum(other.rsplit("/", 1)[-1] == base for other in case.pictures) == 1
    return f"/data/upload/3/{case.rng.randrange(16**8):08x}-{base}" if alone else _local(case, name)


def _cloud(case: Case, name: str) -> str:
    return f"{case.rng.choice(['s3', 'gs'])}://bucket/{name}"


def _served(case: Case, name: str) -> str:
    from urllib.parse import quote

    return f"https://example.org/set/{quote(name)}?X-Amz-Expires=3600&token=a/b"


def _plain_path(case: Case, name: str) -> str:
    return name


# pandas --------------------------------------------------------------------------------------------------------------


def pandas_csv(case: Case) -> Expected:
    import pandas as pd

    rng = case.rng
    picture = rng.choice(["image", "filename", "file_name", "Image Name", "path", "img_path"])
    label = rng.choice(["tags", "labels", "label", "class_name", "Category"])
    separator = rng.choice([",", ",", ";", "\t"])
    shape = rng.choice(["joined", "lists", "json", "long", "one-hot", "columns", "arrays"])
    inner = rng.choice([x for x in "|;," if not any(x in c for c in case.classes)])
    rows: list[dict[str, Any]] = []
    names = {name: _as_written(case, name) for name in case.pictures}
    for name, tags in case.tags.items():
        row: dict[str, Any] = {picture: names[name]}
        if shape == "joined":
            rows.append({**row, label: inner.join(tags) if tags or rng.random() < 0.5 else None})
        elif shape == "lists":
            rows.append({**row, label: tags})
        elif shape == "arrays":
            import numpy as np

            rows.append({**row, label: np.array(tags, dtype=object)})
        elif shape == "json":
            rows.append({**row, label: json.dumps(tags, ensure_ascii=rng.random() < 0.5)})
        elif shape == "long":
            rows += [{**row, label: tag, "xmin": 1, "xmax": 2} for tag in tags] or [{**row, label: None}]
        elif shape == "one-hot":
            rows.append({**row, **{c: int(c in tags) for c in case.classes}})
        else:
            rows.append({**row, **{f"{label}_{i}": tag for i, tag in enumerate(tags)}})
    if shape == "columns" and not any(case.tags.values()):
        return pandas_csv(_again(case))
    if shape == "one-hot" and (len(case.classes) < 2 or any(_is_bookkeeping(c) for c in case.classes)):
        return pandas_csv(_again(case))
    frame = pd.DataFrame(rows)
    if rng.random() < 0.3 and shape != "one-hot":
        frame["split"] = "train"
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16"])
    options = {"sep": separator, "index": rng.random() < 0.4, "encoding": encoding, "quoting": rng.choice([0, 1, 2]),
               "lineterminator": rng.choice(["\n", "\r\n"]), "na_rep": rng.choice(["", "nan", "None", "NULL"])}  # fmt: skip
    path = case.folder / "table.csv"
    frame.to_csv(path, **options)
    back = pd.read_csv(path, sep=separator, encoding=encoding, index_col=0 if options["index"] else None, dtype=str)
    assert back[picture].tolist() == [row[picture] for row in rows], "pandas reads its own names"
    return path.name, {name: sorted(tags) for name, tags in case.tags.items()}, {}


def _is_bookkeeping(name: str) -> bool:
    return name in ("id", "label", "image", "0", "12")


def _again(case: Case) -> Case:
    case.classes = ["hen", "goat", "Kuh rot"]
    case.tags = {name: sorted(case.rng.sample(case.classes, case.rng.randint(1, 2))) for name in case.pictures}
    return case


def _as_written(case: Case, name: str) -> str:
    """The name as another computer writes it, if it still means one picture alone."""
    form = case.rng.choice(["same", "same", "dot", "windows", "absolute", "nfd", "stem", "case"])
    stem = name.rsplit(".", 1)[0]
    alone = sum(other.rsplit("/", 1)[-1].lower() == name.rsplit("/", 1)[-1].lower() for other in case.pictures) == 1
    if form == "dot":
        return f"./{name}"
    if form == "windows":
        return "D:\\my set\\" + name.replace("/", "\\")
    if form == "absolute":
        return f"/home/a/set/{name}"
    if form == "nfd":
        return unicodedata.normalize("NFD", name)
    if form == "stem" and alone and "." not in stem:
        return stem
    if form == "case" and alone:
        return name.upper()
    return name


def pandas_json(case: Case) -> Expected:
    import pandas as pd

    rng = case.rng
    picture = rng.choice(["image", "file_name", "filename"])
    label = rng.choice(["tags", "labels", "label", "categories"])
    frame = pd.DataFrame(
        {picture: [_as_written(case, name) for name in case.pictures], label: [case.tags[n] for n in case.pictures]}
    )
    frame["width"] = 4
    lines = rng.random() < 0.6
    path = case.folder / ("table.jsonl" if lines else "table.json")
    frame.to_json(path, orient="records", lines=lines, force_ascii=rng.random() < 0.5)
    back = pd.read_json(path, orient="records", lines=lines, dtype=False)
    return path.name, {name: sorted(found) for name, found in zip(case.pictures, back[label], strict=True)}, {}


# supervision ---------------------------------------------------------------------------------------------------------


def supervision(case: Case, kind: str) -> Expected:
    import numpy as np
    import supervision as sv

    root = case.folder / "pictures"
    classes = case.classes
    found: dict[str, Any] = {}
    for name in case.pictures:
        ids = np.array([classes.index(tag) for tag in case.tags[name]], int)
        boxes = np.tile(np.array([[0.0, 0.0, 2.0, 2.0]]), (len(ids), 1))
        found[str(root / name)] = sv.Detections(xyxy=boxes, class_id=ids) if len(ids) else sv.Detections.empty()
    dataset = sv.DetectionDataset(classes=classes, images=list(found), annotations=found)
    out = case.folder / kind
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if kind == "coco":
            out = case.folder / "annotations.json"
            dataset.as_coco(annotations_path=str(out))
            back = sv.DetectionDataset.from_coco(str(root), str(out))
        elif kind == "voc":
            dataset.as_pascal_voc(annotations_directory_path=str(out))
            back = sv.DetectionDataset.from_pascal_voc(str(root), str(out))
        elif kind == "createml":
            out = case.folder / "createml.json"
            dataset.as_createml(annotations_path=str(out))
            back = sv.DetectionDataset.from_createml(str(root), str(out))
        else:
            dataset.as_labelme(annotations_directory_path=str(out))
            back = sv.DetectionDataset.from_labelme(str(root), str(out))
    tags = {}
    for path, detections in back.annotations.items():
        name = Path(path).relative_to(root).as_posix()
        tags[name] = sorted({back.classes[i] for i in (detections.class_id if detections.class_id is not None else [])})
    return out.name, tags, {}


# roboflow ------------------------------------------------------------------------------------------------------------


def roboflow(case: Case) -> Expected:
    from roboflow.util.folderparser import parsefolder

    classes = [c for c in case.classes if "," not in c] or ["hen"]
    case.tags = {name: [tag for tag in tags if tag in classes] for name, tags in case.tags.items()}
    lines = [", ".join(["filename", *classes])]
    lines += [", ".join([name, *(str(int(c in tags)) for c in classes)]) for name, tags in case.tags.items()]
    path = case.folder / "pictures" / "_classes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = parsefolder(str(case.folder / "pictures"))
    tags = {
        image["file"].lstrip("/"): sorted(image["annotationfile"]["labels"])
        for image in found["images"]
        if "annotationfile" in image
    }
    shutil.move(path, case.folder / "_classes.csv")
    return "_classes.csv", tags, {}


# datumaro ------------------------------------------------------------------------------------------------------------


def datumaro(case: Case, kind: str) -> Expected:
    from datumaro.components.annotation import Bbox, Label
    from datumaro.components.dataset import Dataset
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image as Media

    classes, rng = case.classes, case.rng
    items = []
    for name in case.pictures:
        own = []
        for tag in case.tags[name]:
            number = classes.index(tag)
            box = kind != "cvat" or rng.random() < 0.6
            own.append(Bbox(0, 0, 2, 2, label=number, id=len(own) + 1, group=len(own) + 1) if box else Label(number))
        media = Media.from_file(path=str(case.folder / "pictures" / name), size=(4, 4))
        items.append(DatasetItem(id=name.rsplit(".", 1)[0], subset="train", media=media, annotations=own))
    dataset = Dataset.from_iterable(items, categories=classes)
    out = case.folder / "out"
    formats = {"cvat": "cvat", "coco": "coco_instances", "voc": "voc_detection"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        dataset.export(str(out), formats[kind], save_media=True)
        back = Dataset.import_from(str(out), formats[kind])
    names = back.categories()[next(key for key in back.categories() if key.name == "label")]
    by_id = {name.rsplit(".", 1)[0]: name for name in case.pictures}
    tags = {}
    for item in back:
        ids = {annotation.label for annotation in item.annotations if getattr(annotation, "label", None) is not None}
        if kind != "voc" or (out / "Annotations" / f"{item.id}.xml").is_file():
            tags[by_id[item.id]] = sorted(names[i].name for i in ids)
    path = {"cvat": "out/train.xml", "coco": "out/annotations/instances_train.json", "voc": "out/Annotations"}[kind]
    return path, tags, {}


FORMATS: dict[str, tuple[Callable[[Case], Expected], str, bool]] = {
    "label-studio-json": (lambda case: label_studio(case, None), "label-studio-sdk", False),
    "label-studio-json-min": (lambda case: label_studio(case, "JSON_MIN"), "label-studio-sdk", False),
    "label-studio-csv": (lambda case: label_studio(case, "CSV"), "label-studio-sdk", False),
    "pandas-csv": (pandas_csv, "pandas", False),
    "pandas-json": (pandas_json, "pandas", False),
    "supervision-coco": (lambda case: supervision(case, "coco"), "supervision", True),
    "supervision-voc": (lambda case: supervision(case, "voc"), "supervision", True),
    "supervision-createml": (lambda case: supervision(case, "createml"), "supervision", True),
    "supervision-labelme": (lambda case: supervision(case, "labelme"), "supervision", True),
    "roboflow-classes": (roboflow, "roboflow", True),
    "datumaro-cvat": (lambda case: datumaro(case, "cvat"), "datumaro", False),
    "datumaro-coco": (lambda case: datumaro(case, "coco"), "datumaro", False),
    "datumaro-voc": (lambda case: datumaro(case, "voc"), "datumaro", False),
}
"""How a case is written, by which package, and whether its pictures lie in one folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=sorted(FORMATS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make, package, plain = FORMATS[given.format]
    given.out.mkdir(parents=True, exist_ok=True)
    template = given.out / "template.jpg"
    for path in (template, template.with_suffix(".png")):
        Image.new("RGB", (4, 4), (90, 20, 20)).save(path)
    refused = 0
    with (given.out / "expected.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(given.files):
            case = Case(given.out / f"{number:05d}", random.Random(f"{given.format} {given.seed} {number}"), template, plain)
            try:
                file, tags, options = make(case)
            except Exception as error:  # the tool's own fault; counted
                refused += 1
                print(f"{number}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
                continue
            entry = {"case": number, "file": file, "tags": tags, "options": options}
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
    print(
        json.dumps(
            {"format": given.format, "package": package, "version": importlib.metadata.version(package), "refused": refused}
        )
    )


if __name__ == "__main__":
    main()
