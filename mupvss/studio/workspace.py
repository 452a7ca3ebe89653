"""The pictures of a studio, what the network finds in them, and what people decided."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.data.decisions import Decisions, State, Status
from mupvss.data.images import read_image
from mupvss.data.masks import IGNORE, highest_id, read_label_image
from mupvss.data.sources import load_dataset
from mupvss.doctor.masks import DOUBT, mask_doubt
from mupvss.errors import CheckpointError, DataError, UserError
from mupvss.export.formats import check_formats, export_all
from mupvss.export.predict_folder import find_pictures
from mupvss.export.regions import Item, Options
from mupvss.files import file_state, read_json, state_mark, write_json
from mupvss.masks.pseudo import refine_mask
from mupvss.options import FolderData, MasksConfig
from mupvss.predict.load import load_classifier
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import FinishedRun
from mupvss.search.seeds import Seeds, read_seeds, seed_path, write_seeds
from mupvss.stages.affinity import CRF
from mupvss.studio.clicked_region import region_at
from mupvss.studio.colours import colours_of, drawn
from mupvss.studio.entries import Entry, gathered, keep_upload, of_samples, of_source, uploaded
from mupvss.studio.next_pictures import POOL, most_telling, tiny_copy

UNSEARCHED = 2.0
"""Doubt of pictures that were not searched yet, so that they come before all others in the list."""


class Workspace:
    """The state of a studio. The network works on one request at a time."""

    def __init__(self, run: Path, folder: Path | None = None, pictures: Path | None = None, device: str = "auto") -> None:
        if not (run / "train" / "model.safetensors").is_file():
            raise CheckpointError(
                f"{run}: no trained network (train/model.safetensors); run 'mupvss run' or 'mupvss train' first"
            )
        self.run, self.finished, self.folder = run, FinishedRun(run), folder or run / "studio"
        self.predictor: Predictor = load_classifier(run, device)
        self.decisions = Decisions(self.folder, self.predictor.classes)
        self.lock = threading.Lock()
        """Held while the network works."""
        self.changing = threading.Lock()
        """Held while a decision, or the list of pictures, is changed."""
        self.adding = threading.Lock()
        """Held while an upload gets its name."""
        self.threshold = 0.5 if self.predictor.threshold is None else self.predictor.threshold
        self.colours = colours_of(len(self.classes))
        self.entries = gathered(self._of_run(), self._of_folder(pictures), uploaded(self.folder / "pictures"))
        self.states = {name: self._read(entry) for name, entry in self.entries.items()}
        self.doubts = self._first_doubts()
        self._copies: dict[str, np.ndarray] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.classes

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.predictor.kind, *self.predictor.maps)))

    def ranked(self) -> list[Entry]:
        """The pictures, the most doubtful first; those that nobody has searched yet come before all others."""
        return sorted(self.entries.values(), key=lambda e: (-self.doubts.get(e.name, UNSEARCHED), e.name))

    def entry(self, name: str) -> Entry:
        """KeyError for a name that is not in this workspace; a path is never built from a request."""
        return self.entries[name]

    def state(self, entry: Entry) -> State:
        return self.states[entry.name]

    def key(self, entry: Entry) -> str:
        """The name under which decisions on this picture, as it is now, are kept."""
        return self.decisions.key(entry.name, entry.content)

    def can_undo(self, entry: Entry) -> bool:
        return self.decisions.can_undo(self.key(entry))

    def picture(self, entry: Entry) -> Image.Image:
        return read_image(entry.path)

    def thumbnail(self, entry: Entry, side: int, masked: bool) -> Image.Image:
        """A small copy of the picture; masked: with its mask if there is one already."""
        picture = self.picture(entry)
        small = picture.copy()
        small.thumbnail((side, side))
        labels = self.labels_at_hand(entry) if masked else None
        if labels is None or labels.shape != (picture.height, picture.width):
            return small
        reduced = Image.fromarray(labels).resize(small.size, Image.Resampling.NEAREST)
        return drawn(small, np.asarray(reduced), self.colours)

    def seeds(self, entry: Entry, kind: str) -> Seeds:
        """Maps of one kind for the picture's present tags: from the run, from an earlier request, or computed now."""
        ready = self._seeds_at_hand(entry, kind)
        if ready is not None:
            return ready
        with self.lock:
            found = self.predictor.search(self.picture(entry), self._tagged(entry), [kind])[kind]
        write_seeds(self._own_path(entry, kind), found)
        if kind == self.predictor.kind:
            self.doubts[entry.name] = mask_doubt(0, found, self.threshold).doubt
        return found

    def labels(self, entry: Entry, threshold: float | None = None, refine: bool = False) -> np.ndarray:
        """(H, W) uint8: a person's mask, else the run's pseudo-mask, else the mask of the maps. With a threshold or refinement,
        it is always that of the maps; the refinement uses the run's own CRF."""
        ready = self.labels_at_hand(entry) if threshold is None and not refine else None
        if ready is not None:
            return ready
        seeds = self.seeds(entry, self.predictor.kind)
        level = self.threshold if threshold is None else threshold
        if not refine:
            return seeds.labels(level)
        return refine_mask(seeds, np.asarray(self.picture(entry)), level, self._crf()).labels()

    def labels_at_hand(self, entry: Entry) -> np.ndarray | None:
        """The mask that is shown, (H, W) uint8; None if the picture has to be searched first."""
        mask = self.decisions.mask(self.key(entry)) if self.state(entry).painted else None
        if mask is not None:
            return mask
        seeds = self._seeds_of_run(entry, self.predictor.kind)
        path = None if seeds is None else self.finished.mask(entry.name)
        if path is not None:
            return read_label_image(path)
        seeds = seeds or self._own_seeds(entry, self.predictor.kind)
        return None if seeds is None else seeds.labels(self.threshold)

    def region(self, entry: Entry, x: int, y: int, tag: str, reach: float) -> np.ndarray:
        """(H, W) bool: the region around a click, by the picture's colours and the tag's map if there is one. UserError for a
        click outside the picture."""
        picture = self.picture(entry)
        if not (0 <= x < picture.width and 0 <= y < picture.height):
            raise UserError(f"{entry.file}: the point {x}, {y} is outside its {picture.width} x {picture.height} pixels")
        seeds = self._seeds_at_hand(entry, self.predictor.kind)
        level = None
        if seeds is not None and tag in self.classes:
            index = np.flatnonzero(seeds.ids == self.classes.index(tag) + 1)
            level = seeds.one(int(index[0])) if len(index) else None
        return region_at(picture, level, x, y, min(1.0, max(0.0, reach)))

    def next(self, count: int) -> list[str]:
        """Names of the undecided pictures most worth looking at, no two alike."""
        waiting = [entry for entry in self.ranked() if self.state(entry).status == "open"][: POOL * count]
        for entry in waiting:
            if entry.name not in self._copies:
                self._copies[entry.name] = tiny_copy(self.picture(entry))
        if not waiting:
            return []
        doubts = [min(1.0, self.doubts.get(entry.name, 1.0)) + 0.05 for entry in waiting]
        chosen = most_telling(doubts, np.stack([self._copies[entry.name] for entry in waiting]), count)
        return [waiting[i].name for i in chosen]

    def retag(self, entry: Entry, tags: Sequence[str]) -> State:
        """Changes the tags. UserError for a tag that the network does not know. A painted mask stays on the undo list."""
        unknown = [tag for tag in tags if tag not in self.classes]
        if unknown:
            raise UserError(f"unknown tag '{unknown[0]}'; this network knows {', '.join(self.classes)}")
        return self._change(entry, State("open", self._ordered(tags), False))

    def decide(self, entry: Entry, status: Status, mask: np.ndarray | None) -> State:
        """Saves a decision. mask: (H, W) uint8 of class ids and 255; None: the one shown so far. UserError for a wrong size or
        id. An accepted mask adds the tags of its classes."""
        before = self.state(entry)
        if mask is None and status == "accepted":
            mask = self.labels(entry)
        if mask is not None:
            self._check(entry, mask)
        painted = before.painted or mask is not None
        tags = before.tags
        if status == "accepted" and mask is not None:
            ids = np.unique(mask)
            tags = self._ordered({*tags, *(self.classes[i - 1] for i in ids[(ids > 0) & (ids != IGNORE)])})
        return self._change(entry, replace(before, status=status, painted=painted, tags=tags), mask)

    def accept(self, names: Sequence[str]) -> list[str]:
        """Accepts the masks that are shown for several pictures; -> the names of the accepted ones. Pictures that were not
        searched yet have no mask and are skipped."""
        done = []
        for name in names:
            entry = self.entry(name)
            mask = self.labels_at_hand(entry)
            if mask is not None:
                self.decide(entry, "accepted", mask)
                done.append(name)
        return done

    def undo(self, entry: Entry) -> State:
        with self.changing:
            self.states[entry.name] = self.decisions.undo(self.key(entry), entry.tags)
            return self.states[entry.name]

    def add(self, path: Path) -> Entry:
        """Adds a picture that was checked and stored in the studio's own folder; its tags are those that the network finds."""
        with self.lock:
            tags = tuple(self.predictor.likely_tags(self.predictor.scores(read_image(path))))
        entry = keep_upload(path, tags)
        with self.changing:
            self.states[entry.name] = self._read(entry)
            self.entries = {**self.entries, entry.name: entry}
        return entry

    def export(self, formats: Sequence[str], accepted_only: bool) -> tuple[Path, int]:
        """Replaces the folder `export`; rejected pictures are never included."""
        check_formats(formats)
        chosen = [
            entry
            for entry in sorted(self.entries.values(), key=lambda e: e.name)
            if (status := self.state(entry).status) == "accepted" or (not accepted_only and status == "open")
        ]
        if not chosen:
            raise UserError("no picture is accepted yet; accept one, or export all that are not rejected")
        out, made = self.folder / "export", self.folder / ".export.part"
        shutil.rmtree(made, ignore_errors=True)
        items = (Item(entry.file, entry.path, self.labels(entry)) for entry in chosen)
        export_all(items, len(chosen), formats, made, Options(self.classes))
        shutil.rmtree(out, ignore_errors=True)
        made.replace(out)
        return out, len(chosen)

    def _change(self, entry: Entry, state: State, mask: np.ndarray | None = None) -> State:
        with self.changing:
            content = entry.content
            self.decisions.write(self.decisions.key(entry.name, content), self.state(entry), state, mask, content)
            self.states[entry.name] = state
        return state

    def _read(self, entry: Entry) -> State:
        return self.decisions.read(self.key(entry), entry.tags)

    def _ordered(self, tags: Sequence[str] | set[str]) -> tuple[str, ...]:
        return tuple(name for name in self.classes if name in tags)

    def _tagged(self, entry: Entry) -> list[int]:
        tags = self.state(entry).tags
        return [i for i, name in enumerate(self.classes) if name in tags]

    def _check(self, entry: Entry, mask: np.ndarray) -> None:
        size = self.picture(entry).size
        if mask.shape != (size[1], size[0]):
            raise UserError(f"{entry.file}: the picture is {size[1]}x{size[0]}, the mask {mask.shape[0]}x{mask.shape[1]}")
        if (highest := highest_id(mask)) > len(self.classes):
            raise UserError(f"{entry.file}: the mask has class id {highest}; there are {len(self.classes)} classes")

    def _crf(self) -> MasksConfig:
        """With the run's dense CRF; where it used none, that of the affinity's labels."""
        try:
            masks = self.finished.config("masks").masks
        except CheckpointError:
            masks = self.finished.config().masks
        return masks.model_copy(update={"crf": CRF}) if masks.crf == "none" else masks

    def _of_run(self) -> list[Entry]:
        """The pictures of the run, as files; drawn scenes are saved to files first."""
        config = self.finished.config()
        try:
            samples = load_dataset(config.data, "seeds", config.limit).samples
        except DataError:
            return []  # the pictures were moved; others can still be given
        return of_samples(samples, config.data.root if isinstance(config.data, FolderData) else None, self.folder)

    def _of_folder(self, pictures: Path | None) -> list[Entry]:
        found = []
        for source in [] if pictures is None else find_pictures([str(pictures)])[0]:
            kept = self.folder / "tags" / f"{state_mark(file_state(str(source.path)))}.json"
            if not kept.is_file():
                write_json(kept, self.predictor.likely_tags(self.predictor.scores(read_image(source.path))))
            found.append(of_source(source, tuple(read_json(kept))))
        return found

    def _first_doubts(self) -> dict[str, float]:
        """Doubts about the pictures that the run has searched; kept in a file, since computing them reads all maps."""
        path = self.folder / "doubts.json"
        kept = read_json(path) if path.is_file() else {}
        found: dict[str, float] = {}
        fresh: dict[str, list[object]] = {}
        for entry in self.entries.values():
            at = seed_path(self.run / "seeds", self.predictor.kind, entry.name)
            state = [file_state(str(at)), round(self.threshold, 4), DOUBT]
            if state[0] is None:
                continue
            known = kept.get(entry.name)
            if known is None or known[0] != state:
                known = [state, mask_doubt(0, read_seeds(at), self.threshold).doubt]
            fresh[entry.name], found[entry.name] = known, known[1]
        if fresh != kept:
            write_json(path, fresh)
        return found

    def _seeds_at_hand(self, entry: Entry, kind: str) -> Seeds | None:
        """Maps for the picture's present tags, from the run or an earlier request; None if they have to be computed."""
        return self._seeds_of_run(entry, kind) or self._own_seeds(entry, kind)

    def _seeds_of_run(self, entry: Entry, kind: str) -> Seeds | None:
        """The run's maps, if they are of this picture and of its present tags."""
        seeds = self.finished.seeds(entry.name, kind)
        return seeds if seeds is not None and [int(i) - 1 for i in seeds.ids] == self._tagged(entry) else None

    def _own_seeds(self, entry: Entry, kind: str) -> Seeds | None:
        path = self._own_path(entry, kind)
        return read_seeds(path) if path.is_file() else None

    def _own_path(self, entry: Entry, kind: str) -> Path:
        """Where the studio keeps the maps that it computed."""
        tags = "-".join(map(str, self._tagged(entry))) or "none"
        return self.folder / "maps" / kind / tags / f"{self.key(entry)}.npz"
