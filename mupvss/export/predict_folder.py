"""Masks of many pictures: predicted one by one, kept as palette PNGs, then written in each format asked for.

A stopped run resumes: a picture that already has a mask by the same network with the same tags is not searched again.
"""

from __future__ import annotations

import difflib
import glob
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mupvss.data.images import SUFFIXES
from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.names import Fitted, PictureNames
from mupvss.data.tags import Tags, read_tags
from mupvss.data.tags.tag_table import counted
from mupvss.data.tags.words import tidy
from mupvss.data.walk import FOUND, is_drawn, pictures_below
from mupvss.errors import DataError
from mupvss.export.formats import check_formats, export_all
from mupvss.export.regions import Item, Options
from mupvss.files import file_state, read_json, write_json
from mupvss.predict.load import load
from mupvss.predict.prediction import PicturePredictor, check_tags
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.runtime.log import console, progress_bar
from mupvss.stages.run_folder import fingerprint

KEPT = FOUND
"""Folder for the masks and figures of the individual pictures."""


@dataclass(frozen=True)
class Request:
    run: Path
    pictures: Sequence[str]
    out: Path
    formats: Sequence[str]
    tags: Path | None
    tag: Sequence[str]
    classifier: bool
    device: str
    min_pixels: int
    tolerance: float


@dataclass(frozen=True)
class Source:
    """A picture to make a mask of."""

    name: str
    """Relative to the folder it was found in."""
    path: Path

    @property
    def stem(self) -> str:
        return str(Path(self.name).with_suffix(""))


def predict_folder(request: Request) -> int:
    """-> the formats under OUT and predictions.json with tags, scores, boxes and areas; 1 if a picture could not be read."""
    check_formats(request.formats)
    sources, notes = find_pictures(request.pictures)
    predictor = load(request.run, request.device, classifier=request.classifier)
    known, more = (None, []) if request.tags is None else _known_tags(request.tags, sources, predictor.classes)
    for note in (*notes, *more, *_threshold_note(request, predictor)):
        _say(note)
    check_tags(request.tag, predictor.classes)
    failed = _search(request, sources, known, predictor)
    good = [source for source in sources if source.name not in failed]
    options = Options(tuple(predictor.classes), request.min_pixels, request.tolerance)
    export_all(_items(good, request.out), len(good), request.formats, request.out, options)
    write_json(request.out / "predictions.json", {source.name: read_json(_kept(request.out, source, ".json")) for source in good})
    for message in failed.values():
        _say(message)
    _say(f"{len(good)} of {len(sources)} pictures: {request.out}")
    return 1 if failed else 0


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _threshold_note(request: Request, predictor: PicturePredictor) -> list[str]:
    """Says so if the classifier's maps are cut at a threshold that was not chosen for them."""
    searched = not (request.run / "train").is_dir() or FinishedRun(request.run).metrics("seeds")
    if searched or not isinstance(predictor, Predictor) or predictor.threshold is not None:
        return []
    return [f"! {request.run}: no threshold was chosen for this network's maps, so 0.5 is used; 'mupvss seeds' chooses one"]


def _known_tags(path: Path, sources: Sequence[Source], classes: Sequence[str]) -> tuple[Tags, list[str]]:
    """The tags by source name, spelled as the network spells them, and notes on what was left out."""
    table = read_tags(path)
    names = PictureNames(source.name for source in sources)
    fitting = {tidy(name).casefold(): name for name in classes}
    unknown: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    found: Tags = {}
    fitted = Fitted()
    for written, tags in table.tags.items():
        picture = fitted.take(written, names.find(written), "the pictures")
        own = set()
        for tag in tags if picture is not None else ():
            name = tag if tag in classes else fitting.get(tag.casefold())
            if name is None:
                unknown[tag] += 1
            else:
                own.add(name)
                renamed |= {} if name == tag else {tag: name}
        if picture is not None:
            found[picture] = found.get(picture, frozenset()) | own
    notes = [f"{path}: {note}" for note in table.notes]
    if renamed:
        notes.append(f"{path}: tags in other capitals: {', '.join(f'{tag} is {name}' for tag, name in sorted(renamed.items()))}")
    if unknown:
        listed = ", ".join(f"{tag} ({count}){_meant(tag, classes)}" for tag, count in unknown.most_common(8))
        notes.append(f"{path}: tags that this network does not know, left out: {listed}. It knows {', '.join(classes)}")
    notes += [f"{path}: {how}: {counted(listed, 'name')}" for how, listed in sorted(fitted.overlooked.items())]
    if fitted.problems:
        notes.append(f"{path}: rows that were not used: {len(fitted.problems)} ({fitted.problems[0]})")
    if unknown and not any(found.values()):
        raise DataError(f"{path}: none of its tags is known to this network: {', '.join(unknown)}; it knows {', '.join(classes)}")
    return found, notes


def _meant(tag: str, classes: Sequence[str]) -> str:
    plain = {name.casefold(): name for name in classes}
    near = difflib.get_close_matches(tag.casefold(), plain, n=1)
    return f"; did you mean '{plain[near[0]]}'?" if near else ""


def find_pictures(given: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Files, folders (searched recursively) and patterns -> pictures, named relative to the folder or the pattern's fixed
    part; and notes on what was left out."""
    found: list[Source] = []
    notes: list[str] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            below = pictures_below(path)
            found += [Source(name, path / name) for name in below.pictures]
            notes += [f"{path}: {note}" for note in (below.note(),) if note]
        elif path.is_file():
            found.append(Source(path.name, path))
        else:
            root = _fixed_part(path)
            try:
                matches = sorted(p for p in root.glob(str(path.relative_to(root))) if p.is_file())
            except ValueError as error:
                raise DataError(f"{text}: not a pattern ({error})") from None
            matches = [p for p in matches if not is_drawn(p, root)]
            if not matches:
                raise DataError(f"{text}: no such picture, folder or match of a pattern")
            pictures = [p for p in matches if p.suffix.lower() in SUFFIXES]
            found += [Source(p.relative_to(root).as_posix(), p) for p in pictures]
            if len(pictures) < len(matches):
                notes.append(f"{text}: files that are not pictures, left out: {len(matches) - len(pictures)}")
    if not found:
        left = f" ({'; '.join(notes)})" if notes else ""
        raise DataError(f"{', '.join(given)}: no picture ({', '.join(sorted(SUFFIXES))}) found there{left}")
    seen: dict[str, Path] = {}
    for source in found:
        other = seen.setdefault(source.stem, source.path)
        if other != source.path:
            raise DataError(f"{source.path} and {other} would both be written as '{source.stem}'; give them in separate calls")
    return list({source.path: source for source in found}.values()), notes


def _fixed_part(pattern: Path) -> Path:
    parts = pattern.parts
    plain = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:plain]) if plain else Path()


def _search(request: Request, sources: Sequence[Source], known: Tags | None, predictor: PicturePredictor) -> dict[str, str]:
    """Predicts the masks and keeps them on disk with their figures; -> messages, by name, for pictures that could not be used."""
    failed: dict[str, str] = {}
    maker = fingerprint("predict", network_state(request.run), request.classifier, list(predictor.classes))
    with progress_bar("predict", len(sources), "pictures") as advance:
        for source in sources:
            try:
                tags = _tags_of(source, request, known)
                made_by = fingerprint(maker, tags, file_state(str(source.path)))
                if not _is_made(request.out, source, made_by):
                    _predict_one(predictor, source, tags, request.out, made_by)
            except DataError as error:
                failed[source.name] = str(error)
            advance(1)
    return failed


def _predict_one(predictor: PicturePredictor, source: Source, tags: list[str] | None, out: Path, made_by: str) -> None:
    found = predictor(source.path, tags)
    write_palette_png(_kept(out, source, ".png"), found.labels)
    figures = {
        "tags": list(found.tags),
        "scores": {name: round(score, 4) for name, score in found.scores.items()},
        "unsure": list(found.unsure),
        "boxes": {name: list(box) for name, box in found.boxes.items()},
        "areas": found.areas,
        "size": list(found.labels.shape),
        "confidence": round(float(found.confidence.mean()), 4),
        "made_by": made_by,
    }
    write_json(_kept(out, source, ".json"), figures)


def _tags_of(source: Source, request: Request, known: Tags | None) -> list[str] | None:
    if known is None and not request.tag:
        return None
    own = frozenset() if known is None else known.get(source.name)
    if own is None:
        raise DataError(f"{source.path}: not in {request.tags}; add it there, with or without tags")
    return sorted(own | set(request.tag))


def _is_made(out: Path, source: Source, made_by: str) -> bool:
    try:
        return read_json(_kept(out, source, ".json"))["made_by"] == made_by and _kept(out, source, ".png").is_file()
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return False


USED = (
    "train/model.safetensors",
    "segment/model.safetensors",
    "seeds/metrics.json",
    "seeds/config.toml",
    "seeds/centres/*.safetensors",
    "segment/config.toml",
    "val/config.toml",
    "val/calibration.json",
    "model.safetensors",
    "config.json",
)
"""The files of a run, and of a shared network, that predictions depend on."""


def network_state(run: Path) -> list[object]:
    """State of those files of a run that predictions depend on."""
    files = [run] if run.is_file() else sorted(path for pattern in USED for path in run.glob(pattern))
    return [[path.relative_to(run).as_posix(), file_state(str(path))] for path in files]


def _kept(out: Path, source: Source, suffix: str) -> Path:
    return out / KEPT / f"{source.stem}{suffix}"


def _items(sources: Sequence[Source], out: Path) -> Iterator[Item]:
    for source in sources:
        yield Item(
            source.name,
            source.path,
            read_label_image(_kept(out, source, ".png")),
            read_json(_kept(out, source, ".json"))["scores"],
        )
