"""Commands that run a config or one of its stages, compare several configs, or score one folder of masks against another."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from mupvss.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from mupvss.config.run import RunConfig
    from mupvss.stages.run_folder import Run

SUMMARIES = {
    "run": "Train on tagged pictures, make their masks, train a segmentation network on those, write a report.",
    "train": "Train the classifier on the tags.",
    "cam_train": "Train a plain CAM in the same budget, to compare with.",
    "cam": "Make and score the maps of the plain CAM.",
    "seeds": "Search the pictures with the trained classifier, and score the maps.",
    "affinity": "Train the affinity that refines the maps.",
    "masks": "Make pseudo-masks from the maps: affinity, random walk, dense CRF.",
    "crossfit": "Draw each mask again, by a network that has not learned it (needs crossfit.folds).",
    "segment": "Train the segmentation network on the pseudo-masks.",
    "val": "Score the segmentation network on the pictures of the val split.",
    "report": "Write the report page from the stages that are finished.",
}
COMMON = (
    "method", "seed", "limit", "baseline", "device", "threads", "workers", "snapshots", "preview", "data.source", "data.root",
    "data.tags", "data.val_tags", "data.masks", "data.classes", "data.unreadable", "model.backbone", "model.weights",
    "model.image_size", "train.image_steps", "train.batch_size", "train.lr", "train.precision", "train.flip", "search.scales",
    "search.maps", "affinity.kind", "masks.crf", "masks.margin", "crossfit.folds", "segment.network", "segment.size",
    "segment.train.image_steps", "segment.scales", "segment.crf",
)  # fmt: skip
"""The options that people change most; a config has only those that its choices read."""


def run_arguments(argv: Sequence[str], prog: str) -> tuple[RunConfig, Path]:
    """CONFIG [--base CONFIG] [--out DIR] [--any.option VALUE]: the file's values are the defaults of the options.

    The options that decide which others exist (the method, the source of the pictures, ...) are read first.
    """
    from mupvss.config.load import SELECTORS, build, overlay, read_values, run_name

    argv = list(argv)
    if everything := "--help-all" in argv:
        argv[argv.index("--help-all")] = "--help"
    base = _taken(argv, "base")
    path = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    if path is None and not {"-h", "--help"} & set(argv):
        raise ConfigError(f"{prog} needs a config, as in: {prog} configs/scenes.toml")
    values = {} if path is None else read_values(path, None if base is None else Path(base))
    for name in SELECTORS:
        chosen = None
        while (found := _taken(argv, name)) is not None:
            chosen = found  # if repeated, the last one counts, as for every option
        if chosen is not None:
            *parents, key = name.split(".")
            values = overlay(values, {parents[0]: {key: chosen}} if parents else {key: chosen})
    known = build(values, str(path or "the command line"))
    if {"-h", "--help"} & set(argv) and not everything:
        print_common_options(known, prog, path)
        raise SystemExit(0)
    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("config", Annotated[type(known), tyro.conf.arg(name="")]),
            (
                "out",
                Annotated[Path | None, tyro.conf.arg(help="Folder of the run; default runs/NAME for a config NAME.toml.")],
                None,
            ),
        ],
        frozen=True,
    )
    parsed: Any = tyro.cli(arguments, prog=f"{prog} CONFIG", args=argv, default=arguments(known))
    return parsed.config, parsed.out or Path("runs") / ("run" if path is None else run_name(path))


def print_common_options(config: RunConfig, prog: str, path: Path | None) -> None:
    """Prints the short `--help`: the options in COMMON that the config has, with their values."""
    console = Console(highlight=False, markup=False)
    of = "the defaults" if path is None else f"of {path}"
    console.print(
        f"usage: {prog} CONFIG [--base CONFIG] [--out FOLDER] [--OPTION VALUE ...]\n\n{SUMMARIES[prog.split()[-1]]}\n\n"
        "CONFIG is a TOML file, or one that comes with mupvss: demo, scenes, voc-animals, voc, coco.\n"
        "--base: a config whose values hold where CONFIG says nothing. --out: the folder of the run, runs/NAME by default.\n\n"
        f"The options that people change, with their values ({of}). All options: {prog} {path or 'CONFIG'} --help-all\n",
        soft_wrap=True,
    )
    for option in COMMON:
        section: Any = config
        *parents, name = option.split(".")
        for parent in parents:
            section = getattr(section, parent, None)
        kinds = [kind.model_fields for kind in type(section).__mro__ if hasattr(kind, "model_fields")]
        said = [fields[name].description for fields in kinds if name in fields]
        if said:
            value = getattr(section, name)
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
            console.print(f"  --{option.replace('_', '-')}  ({'none' if shown in (None, '') else shown})", soft_wrap=True)
            text = " ".join(next((words for words in said if words), "").split())
            console.print(textwrap.indent(textwrap.fill(text, max(40, console.width - 9)), " " * 8), soft_wrap=True)


def _taken(argv: list[str], name: str) -> str | None:
    """Removes --NAME VALUE or --NAME=VALUE from the arguments; -> VALUE, or None if it is absent."""
    for index, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag.replace("_", "-") != f"--{name}".replace("_", "-"):
            continue
        if not equals and index + 1 == len(argv):
            raise ConfigError(f"{word} needs a value" + (", as in --base configs/voc-animals.toml" if name == "base" else ""))
        argv.pop(index)
        return value if equals else argv.pop(index)
    return None


def stage_command(name: str) -> Callable[[Sequence[str]], int | None]:
    def command(argv: Sequence[str]) -> None:
        config, out = run_arguments(argv, f"mupvss {name}")
        # Imported here so that --help and the light commands start quickly.
        from mupvss.runtime.processes import use_cpu
        from mupvss.stages.run import run_all, run_alone
        from mupvss.stages.run_folder import Run

        if config.device == "cpu":
            use_cpu()
        run = Run(config, out)
        if name == "run":
            run_all(run, expected_seconds(run))
        else:
            run_alone(run, name)

    command.__doc__ = SUMMARIES[name]
    return command


def expected_seconds(run: Run) -> dict[str, float]:
    """Seconds that each stage will take on this computer. Empty for sources other than `folder`, after the training, and with
    several processes."""
    from mupvss.runtime.processes import processes
    from mupvss.stages.run_folder import pictures_of
    from mupvss.start.estimate import measure, print_estimate

    if run.config.data.source != "folder" or (run.folder("train") / "metrics.json").is_file() or processes().count > 1:
        return {}
    estimate = measure(run.config, pictures_of(run, "train"))
    print_estimate(estimate)
    return dict(estimate.stages)


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    configs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Configs to compare, one per row of the result: config files, tables of configs (ablations.toml), single rows of these
    (ablations.toml:ge), or presets by name."""
    base: Path | None = None
    """Config that supplies what the others leave out: pictures, backbone, budget."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds; every config is trained once per seed."""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    reference: str | None = None
    """Row to compute differences against; default: the last one."""
    curve: int = 0
    """Number of pictures for a learning curve of the first seed (needs `snapshots`); 0: no curve."""
    pictures: int = 6
    """Number of pictures shown side by side; 0: no figures."""
    records: Path | None = None
    """Folder of saved results. Runs found there are skipped, unless they lack a learning curve that is asked for; new results are
    added."""
    report_only: bool = False
    """Do not train or search; report the results that exist."""


def compare(argv: Sequence[str]) -> None:
    """Compare configs over several seeds, in one table with pictures; trains what is missing."""
    arguments = tyro.cli(CompareArguments, prog="mupvss compare", args=list(argv))
    from mupvss.compare.run import Comparison
    from mupvss.compare.run import compare as run_comparison

    if not arguments.configs or not arguments.seeds:
        raise ConfigError("mupvss compare needs at least one config and one seed")
    if arguments.curve < 0 or arguments.pictures < 0:
        raise ConfigError(f"--curve is {arguments.curve}, --pictures is {arguments.pictures}; expected 0 or more")
    run_comparison(Comparison(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}))


@dataclasses.dataclass(frozen=True)
class UpgradeArguments:
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Configs, and folders of runs, that an earlier version made."""


def upgrade(argv: Sequence[str]) -> int:
    """Bring configs and finished runs of earlier versions up to date; nothing is computed."""
    arguments = tyro.cli(UpgradeArguments, prog="mupvss upgrade", args=list(argv))
    from mupvss.stages.upgrade import upgrade_config, upgrade_run

    if not arguments.paths:
        raise ConfigError("mupvss upgrade needs a config or the folder of a run")
    console, sound = Console(markup=False, highlight=False), True
    for path in arguments.paths:
        try:
            if path.is_dir():
                for state in upgrade_run(path):
                    sound &= state.valid
                    console.print(f"{path}/{state.stage}, made by {state.version}: {state.said}", soft_wrap=True)
            elif (kept := upgrade_config(path)) is None:
                console.print(f"{path}: up to date", soft_wrap=True)
            else:
                console.print(f"{path}: rewritten in today's words, without comments; the old file is {kept}", soft_wrap=True)
        except UserError as error:
            sound = False
            Console(stderr=True, markup=False, highlight=False).print(f"error: {error}", soft_wrap=True)
    return 0 if sound else 1


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    pred: Path
    """Folder of predicted masks: palette PNGs, or PNGs in the colours of a labelmap.txt."""
    truth: Path
    """Folder of true masks, in the same forms; 255 is ignored."""
    num_classes: int
    """Number of classes, including the background."""
    list: Path | None = None
    """Text file of picture names, one per line; default: every mask in TRUTH."""
    names: tuple[str, ...] = ()
    """Names of the classes for the table, without the background."""
    against: Path | None = None
    """Second folder of predicted masks: says whether the first differs from it by more than chance."""
    band: int = 5
    """Width in pixels of the band at true boundaries that is scored apart."""
    json: bool = False
    """Print one JSON object instead of a table."""


def evaluate(argv: Sequence[str]) -> None:
    """Score a folder of masks against another."""
    import json

    from mupvss.data.voc import read_split
    from mupvss.evaluation.confusion import scores
    from mupvss.evaluation.folders import as_json, as_table, further_figures, in_words, mask_files, score_folders

    arguments = tyro.cli(EvaluateArguments, prog="mupvss evaluate", args=list(argv))
    if not 1 <= arguments.num_classes <= 255:
        raise DataError(f"--num-classes is {arguments.num_classes}, expected 1 to 255, the background counted")
    names = read_split(arguments.list, mask_files(arguments.truth).__contains__) if arguments.list else None
    if arguments.band < 1:
        raise DataError(f"--band is {arguments.band}, expected a width of at least one pixel")
    settings = (arguments.truth, arguments.num_classes, names, arguments.names, arguments.band)
    scored = score_folders(arguments.pred, *settings)
    other = None if arguments.against is None else score_folders(arguments.against, *settings)
    found = scores(scored.matrix)
    further = further_figures(scored, other)
    for note in scored.notes:
        Console(stderr=True).print(note, highlight=False, soft_wrap=True, markup=False)
    if arguments.json:
        print(json.dumps({**as_json(found), "pictures": scored.pictures, "ignored": 100 * scored.ignored, **further}))
        return
    labels = ["background", *arguments.names][: arguments.num_classes]
    labels += [f"class {i}" for i in range(len(labels), arguments.num_classes)]
    console = Console()
    console.print(as_table(found, labels, f"{arguments.pred} against {arguments.truth}"))
    console.print(f"{scored.pictures} pictures, {100 * scored.ignored:.1f} % of the pixels ignored", highlight=False)
    for line in in_words(further, arguments.band, arguments.against):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
