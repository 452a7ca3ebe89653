"""Stages `seeds` and `cam`: the search over every picture, a background threshold without masks, palette PNGs, and the scores of
the maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mupvss.config.run import RunConfig
from mupvss.data.masks import label_names, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.summary import print_doubts
from mupvss.evaluation.folders import as_json, as_table
from mupvss.files import write_json
from mupvss.model.checkpoint import save_tensors
from mupvss.options import SearchConfig, SearchOptions, Section, added
from mupvss.predict.predictor import Predictor
from mupvss.predict.run import CENTRES, CENTRES_FILE
from mupvss.runtime.device import computed_in, device_name
from mupvss.runtime.log import console, each
from mupvss.runtime.processes import processes
from mupvss.search.centres import gather, pictures_of_classes, seen
from mupvss.search.given import GIVEN, HALF, GivenSeeds
from mupvss.search.maps import finder_of, witnesses
from mupvss.search.seeds import read_seeds, seed_path, write_seeds
from mupvss.search.threshold import Choice, disagreements
from mupvss.stages.run_folder import Metrics, Stage, Work, fingerprint, reuse, stage_fingerprint
from mupvss.stages.scoring import MapScores, as_record, kappas, score_maps

CAM_KEYS = {"cam": "", "cam_spread": "spread_", "cam_refined": "refined_"}
"""Kinds of the plain CAM's maps, and the prefix of their figures' names."""


OF_THE_SCORES = ("maps", "kinds", "threshold", "given")
"""Options of the search that change no map."""


class SeedsInputs(Section):
    """What a search depends on besides its network and pictures."""

    search: SearchConfig
    options: Section
    """The method's own options for its search."""
    background: str = added("some", neutral="some")


class CamInputs(Section):
    search: SearchOptions
    """As in `SeedsInputs`, without the choice of maps, which is fixed for the plain CAM."""
    background: str = added("some", neutral="some")


def seeds_inputs(config: RunConfig) -> SeedsInputs:
    return SeedsInputs.model_construct(search=config.search, options=config.search_options, background=config.data.background)


def cam_inputs(config: RunConfig) -> CamInputs:
    values = {name: getattr(config.search, name) for name in SearchOptions.model_fields}
    return CamInputs.model_construct(search=SearchOptions.model_construct(**values), background=config.data.background)


def seeds(work: Work) -> Metrics:
    """-> maps/KIND/NAME.npz, kinds.json and, at the mask-free threshold, masks/NAME.png; centres/, if a kind needs them."""
    inputs, dataset, folder = work.inputs, work.dataset, work.folder
    if inputs.search.given is not None:
        return take_given(work, GivenSeeds(inputs.search.given, dataset))
    predictor = Predictor.open(work.run.checkpoint("train"), inputs.search, inputs.options, device=str(work.device))
    if processes().main:
        search = inputs.search.model_copy(update={name: SearchConfig.model_fields[name].default for name in OF_THE_SCORES})
        network = stage_fingerprint(work.run.folder("train"))
        known = fingerprint(SEEDS.revision, network, work.pictures, search, inputs.options)
        reuse(folder, CENTRES, known)
        reuse(folder, "maps", known)
    processes().wait()
    found, agreement = scored(predictor, dataset, folder, inputs)
    chosen = found[predictor.kind]
    write_masks(dataset, folder, predictor.kind, chosen.threshold)
    if processes().main:
        write_json(folder / "kinds.json", {kind: as_record(entry) for kind, entry in found.items()})
    computed = {"precision": computed_in(predictor.device, inputs.search.precision), "device": device_name(predictor.device)}
    return {
        "maps": predictor.kind,
        "threshold": chosen.threshold,
        **_sureness(chosen.choice, agreement),
        **computed,
        **_figures(found, predictor.kind, dataset.classes),
    }


def take_given(work: Work, given: GivenSeeds) -> Metrics:
    """-> maps/given/NAME.npz and masks/NAME.png, of another method's maps."""
    dataset, folder = work.dataset, work.folder
    before = Counter(given.notes)
    for sample in each("seeds", dataset.samples):
        path = seed_path(folder, GIVEN, sample.name)
        if not path.is_file():
            write_seeds(path, given.seeds(sample))
    # Of the folder every process knows the same; of the pictures each has read its own.
    read = Counter[str]()
    for own in processes().in_order([given.notes - before]):
        read += own
    remarks = list(given.remarks({text: count for text, count in before.items() if text not in read} | read))
    print_doubts(remarks, console)
    found = score_maps(
        dataset, folder, GIVEN, work.inputs.background == "some", work.inputs.search.threshold, HALF if given.masks_only else None
    )
    write_masks(dataset, folder, GIVEN, found.threshold)
    if processes().main:
        write_json(folder / "kinds.json", {GIVEN: as_record(found)})
    metrics = {"maps": GIVEN, "threshold": found.threshold, **_sureness(found.choice, {}), "remarks": remarks}
    return {**metrics, **_figures({GIVEN: found}, GIVEN, dataset.classes)}


def scored(
    predictor: Predictor, dataset: Dataset, folder: Path, inputs: SeedsInputs
) -> tuple[dict[str, MapScores], dict[str, float]]:
    """Searches every picture and scores each kind of map.

    Returns:
        The scores by kind, and the agreement of search and classifier by class, where the maps of both are made.
    """
    joined = predictor.maps[predictor.kind].joins or ()
    kinds = sorted({*predictor.kinds, predictor.kind, *joined})
    gather_centres(predictor, dataset, kinds, folder)
    search_all(predictor, dataset, kinds, folder)
    background, rule = inputs.background == "some", inputs.search.threshold
    found = {kind: score_maps(dataset, folder, kind, background, rule) for kind in kinds}
    pair = witnesses(predictor.maps, predictor.kind)
    return found, kappas(dataset, folder, pair, background) if pair is not None and set(pair) <= set(kinds) else {}


def _sureness(choice: Choice, agreement: dict[str, float]) -> Metrics:
    """How the threshold was chosen and how sure the masks are, for the metrics; warnings are printed too."""
    warnings = [*choice.warnings(), *disagreements(agreement)]
    print_doubts(warnings, console)
    sure = {name: getattr(choice, name) for name in ("share", "less", "more", "least", "most")}
    return {
        "threshold_rule": choice.rule,
        "sureness": {key: round(value, 4) for key, value in sure.items()},
        "agreement": {name: round(kappa, 3) for name, kappa in agreement.items()},
        "warnings": warnings,
    }


def cam(work: Work) -> Metrics:
    """-> maps/KIND/NAME.npz, and their figures where there are masks."""
    predictor = Predictor.open(work.run.checkpoint("cam_train"), work.inputs.search, device=str(work.device))
    kinds = [kind for kind in CAM_KEYS if kind in predictor.maps]
    search_all(predictor, work.dataset, kinds, work.folder)
    metrics: Metrics = {}
    for kind in kinds:
        prefix, found = CAM_KEYS[kind], score_maps(work.dataset, work.folder, kind, work.inputs.background == "some")
        if found.oracle is not None and found.plain is not None:
            metrics |= {f"{prefix}oracle": found.oracle.miou, f"{prefix}miou": found.plain.miou}
            metrics[f"{prefix}threshold"] = found.threshold
    return metrics


def gather_centres(predictor: Predictor, dataset: Dataset, kinds: Sequence[str], folder: Path) -> None:
    """Where a kind of map needs the centres of all pictures, the network gets them: those of folder/centres, which is written if
    it is missing."""
    finder = finder_of(predictor.maps, kinds)
    if finder is None:
        return
    path = folder / CENTRES / CENTRES_FILE
    if processes().from_main(not path.is_file()):
        known = []
        for sample in each("gathering centres", pictures_of_classes(dataset)):
            classes = dataset.tagged(sample)
            features = predictor.features(sample.open_image(), need_attention=True)
            known.append(seen(features, classes, predictor.maps, finder, predictor.config, predictor.options))
        everyone = processes().in_order(known)
        if processes().main:
            own: Any = predictor.options
            centres = gather(everyone, len(dataset.classes), own.centres)
            save_tensors(path, centres._asdict(), {"classes": list(dataset.classes)})
        processes().wait()
    predictor.remember(path)


def search_all(predictor: Predictor, dataset: Dataset, kinds: Sequence[str], folder: Path) -> None:
    """Writes folder/maps/KIND/NAME.npz for every picture, tagged classes only; pictures that already have them are skipped."""
    for sample in each(folder.name, dataset.samples):
        paths = {kind: seed_path(folder, kind, sample.name) for kind in kinds}
        if not all(path.is_file() for path in paths.values()):
            classes = dataset.tagged(sample)
            found = predictor.search(sample.open_image(), classes, kinds)
            for kind, path in paths.items():
                write_seeds(path, found[kind])


def write_masks(dataset: Dataset, folder: Path, kind: str, threshold: float) -> None:
    for sample in processes().share(dataset.samples):
        labels = read_seeds(seed_path(folder, kind, sample.name)).labels(threshold)
        write_palette_png(folder / "masks" / f"{sample.name}.png", labels)


def _figures(found: dict[str, MapScores], kind: str, classes: tuple[str, ...]) -> Metrics:
    """All figures of the chosen maps, and mIoU of the others; without masks to score against, only that there are 0 pictures."""
    chosen = found[kind]
    if chosen.plain is None or chosen.oracle is None:
        return {"pictures": 0}
    names = label_names(classes)
    how = "threshold chosen without masks" if chosen.threshold else "no background"
    console.print(as_table(chosen.plain, names, f"seeds, {how}, {chosen.pictures} pictures"))
    for name, miou in chosen.trivial.items():
        console.print(f"to compare with, {name}: {miou:.1f}", highlight=False)
    figures: Metrics = {
        "pictures": chosen.pictures,
        "miou": chosen.plain.miou,
        "iou": dict(zip(names, chosen.plain.iou, strict=True)),
    }
    figures |= per_class(as_json(chosen.plain))
    figures |= {"miou_oracle": chosen.oracle.miou, "threshold_oracle": chosen.threshold_oracle, "trivial": chosen.trivial}
    for name, entry in found.items():
        if entry.plain is not None and entry.oracle is not None:
            figures |= {f"{name}_miou": entry.plain.miou, f"{name}_oracle": entry.oracle.miou}
    return figures


def per_class(scored: Mapping[str, Any]) -> Metrics:
    """What `as_json` has besides IoU. Lists are nested, since `precision` by itself is the number format of a stage."""
    apart = ("false_positive", "false_negative")
    return {**{key: scored[key] for key in apart}, "per_class": {key: scored[key] for key in ("precision", "recall")}}


SEEDS = Stage(
    "seeds", seeds_inputs, seeds, after=("train",), scores=True, does="searches {pictures} for what they are tagged with"
)
CAM = Stage("cam", cam_inputs, cam, after=("cam_train",), scores=True, does="makes the plain CAM's maps of {pictures}")
