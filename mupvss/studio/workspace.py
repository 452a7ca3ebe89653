"""The pictures of a studio, what the network finds in them, and what people decided."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.data.images import read_image
from mupvss.data.sources import load_dataset
from mupvss.doctor.masks import mask_doubt
from mupvss.errors import CheckpointError, DataError, UserError
from mupvss.export.formats import check_formats, export_all
from mupvss.export.predict_folder import find_pictures
from mupvss.export.regions import Item, Options
from mupvss.files import read_json, write_json
from mupvss.masks.pseudo import SHARPNESS, refine_mask
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.search.seeds import Seeds, read_seeds, write_seeds
from mupvss.studio.records import Records, State, Status


@dataclass(frozen=True)
class Entry:
    """A picture of the studio."""

    name: str
    """Its key: a plain file name without suffix."""
    path: Path
    tags: tuple[str, ...] | None
    """The given tags; None: those that the network finds."""


class Workspace:
    """The state of a studio. The network works on one request at a time."""

    def __init__(self, run: Path, folder: Path | None = None, pictures: Path | None = None, device: str = "auto") -> None:
        if not (run / "train" / "model.safetensors").is_file():
            raise CheckpointError(
                f"{run}: no trained network (train/model.safetensors); run 'mupvss run' or 'mupvss train' first"
            )
        self.run, self.finished, self.folder = run, FinishedRun(run), folder or run / "studio"
        self.predictor: Predictor = load_classifier(run, device)
        self.records = Records(self.folder)
        self.lock = threading.Lock()
        self.threshold = 0.5 if self.predictor.threshold is None else self.predictor.threshold
        self.entries = {entry.name: entry for entry in (*self._of_run(), *self._of_folder(pictures), *self._uploaded())}
        self.doubts: dict[str, float] = {}
        for entry in self.entries.values():
            seeds = self._seeds_of_run(entry)
            if seeds is not None:
                self.doubts[entry.name] = mask_doubt(0, seeds, self.threshold).doubt

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.classes

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.predictor.kind, *self.predictor.maps)))

    def ranked(self) -> list[Entry]:
        """The pictures, the most doubtful first; those that nobody has searched yet come before all others."""
        return sorted(self.entries.values(), key=lambda e: (-self.doubts.get(e.name, 2.0), e.name))

    def entry(self, name: str) -> Entry:
        """KeyError for a name that is not in this workspace; a path is never built from a request."""
        return self.entries[name]

    def state(self, entry: Entry) -> State:
        return self.records.read(entry.name, entry.tags or ())

    def picture(self, entry: Entry) -> Image.Image:
        return read_image(entry.path)

    def seeds(self, entry: Entry, kind: str) -> Seeds:
        """Maps of one kind for the picture's present tags: from the run, from an earlier request, or computed now."""
        state = self.state(entry)
        tags = state.tags
        ready = self._seeds_of_run(entry, kind) if entry.tags is not None and set(tags) == set(entry.tags) else None
        if ready is not None:
            return ready
        index = [i for i, name in enumerate(self.classes) if name in tags]
        path = self.folder / "maps" / kind / ("-".join(map(str, index)) or "none") / f"{entry.name}.npz"
        if not path.is_file():
            with self.lock:
                found = self.predictor.search(self.picture(entry), index, [kind])[kind]
            write_seeds(path, found)
            if kind == self.predictor.kind:
                self.doubts[entry.name] = mask_doubt(0, found, self.threshold).doubt
        return read_seeds(path)

    def labels(self, entry: Entry, threshold: float | None = None, refine: bool = False) -> np.ndarray:
        """(H, W) uint8: the person's mask; that of the maps if there is none, or if a threshold or refinement is asked for."""
        mask = self.records.mask(entry.name) if threshold is None and not refine else None
        if mask is not None:
            return mask
        seeds = self.seeds(entry, self.predictor.kind)
        level = self.threshold if threshold is None else threshold
        if not refine:
            return seeds.labels(level)
        return refine_mask(seeds, np.asarray(self.picture(entry)), level, "clip-es", sharpness=SHARPNESS).labels()

    def retag(self, entry: Entry, tags: Sequence[str]) -> State:
        """Changes the tags. UserError for a tag that the network does not know. A painted mask stays on the undo list."""
        unknown = [tag for tag in tags if tag not in self.classes]
        if unknown:
            raise UserError(f"unknown tag '{unknown[0]}'; this network knows {', '.join(self.classes)}")
        before = self.state(entry)
        ordered = tuple(name for name in self.classes if name in tags)
        return self._change(entry, before, State("open", ordered, False))

    def decide(self, entry: Entry, status: Status, mask: np.ndarray | None) -> State:
        """Saves a decision. mask: (H, W) uint8 of class ids and 255; None: the one shown so far. UserError for a wrong size or
        id."""
        before = self.state(entry)
        if mask is None and status == "accepted":
            mask = self.labels(entry)
        if mask is not None:
            self._check(entry, mask)
        return self._change(entry, before, replace(before, status=status, painted=before.painted or mask is not None), mask)

    def undo(self, entry: Entry) -> State:
        return self.records.undo(entry.name, entry.tags or ())

    def add(self, path: Path) -> Entry:
        """Adds a picture that was checked and stored in the studio's own folder; its tags are those that the network finds."""
        with self.lock:
            tags = tuple(self.predictor.likely_tags(self.predictor.scores(read_image(path))))
        entry = Entry(path.stem, path, tags)
        write_json(path.with_suffix(".tags.json"), list(tags))
        self.entries[entry.name] = entry
        return entry

    def export(self, formats: Sequence[str], accepted_only: bool) -> tuple[Path, int]:
        """Writes into the studio's folder `export`; rejected pictures are never included."""
        check_formats(formats)
        chosen = [
            entry
            for entry in sorted(self.entries.values(), key=lambda e: e.name)
            if (status := self.state(entry).status) == "accepted" or (not accepted_only and status == "open")
        ]
        if not chosen:
            raise UserError("no picture is accepted yet; accept one, or export all that are not rejected")
        out = self.folder / "export"
        items = (Item(entry.name + entry.path.suffix, entry.path, self.labels(entry)) for entry in chosen)
        export_all(items, len(chosen), formats, out, Options(self.classes))
        return out, len(chosen)

    def _change(self, entry: Entry, before: State, state: State, mask: np.ndarray | None = None) -> State:
        self.records.write(entry.name, before, state, mask)
        return state

    def _check(self, entry: Entry, mask: np.ndarray) -> None:
        size = self.picture(entry).size
        if mask.shape != (size[1], size[0]):
            raise UserError(f"{entry.name}: the picture is {size[1]}x{size[0]}, the mask {mask.shape[0]}x{mask.shape[1]}")
        ids = np.unique(mask)
        if ids[ids != 255].max(initial=0) > len(self.classes):
            raise UserError(f"{entry.name}: the mask has class id {ids[ids != 255].max()}; there are {len(self.classes)} classes")

    def _of_run(self) -> list[Entry]:
        """The pictures of the run, as files; drawn scenes are saved to files first."""
        config = self.finished.config()
        try:
            samples = load_dataset(config.data, "seeds", config.limit).samples
        except DataError:
            return []  # the pictures were moved; others can still be given
        found = []
        for sample in samples:
            path = Path(sample.origin)
            if not path.is_file():
                path = self.folder / "drawn" / f"{sample.name}.png"
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    sample.open_image().save(path)
            found.append(Entry(sample.name, path, tuple(sorted(sample.tags))))
        return found

    def _of_folder(self, pictures: Path | None) -> list[Entry]:
        sources = [] if pictures is None else find_pictures([str(pictures)])
        found = []
        for source in sources:
            name = source.stem.replace("/", "__")
            kept = self.folder / "tags" / f"{name}.json"
            if not kept.is_file():
                write_json(kept, self.predictor.likely_tags(self.predictor.scores(read_image(source.path))))
            found.append(Entry(name, source.path, tuple(read_json(kept))))
        return found

    def _uploaded(self) -> list[Entry]:
        tags = sorted((self.folder / "pictures").glob("*.tags.json"))
        return [Entry(p.name.removesuffix(".tags.json"), _beside(p), tuple(read_json(p))) for p in tags]

    def _seeds_of_run(self, entry: Entry, kind: str | None = None) -> Seeds | None:
        return self.finished.seeds(entry.name, kind or self.predictor.kind)


def _beside(tags: Path) -> Path:
    """The uploaded picture that a tag file belongs to."""
    return next(p for p in tags.parent.glob(f"{tags.name.removesuffix('.tags.json')}.*") if p.suffix != ".json")
