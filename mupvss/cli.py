"""The command `mupvss`: a small table of commands, each with its own arguments."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

import mupvss
from mupvss.config.load import load_config
from mupvss.config.schema import DataConfig, RunConfig
from mupvss.errors import CheckpointError, ConfigError, DataError, TrainingDivergedError, WeightsError

console = Console(stderr=True)


def _run_arguments(argv: Sequence[str], prog: str) -> tuple[RunConfig, Path]:
    """CONFIG [--out DIR] [--any.option VALUE]: the file's values are the defaults of the options."""

    argv = list(argv)
    known = RunConfig()
    path, base = None, _take_base(argv)
    if argv and not argv[0].startswith("-"):
        path = Path(argv.pop(0))
        known = load_config(path, base)
    elif not {"-h", "--help"} & set(argv):
        raise ConfigError(f"{prog} needs a config, as in: {prog} configs/scenes.toml")

    @dataclasses.dataclass(frozen=True)
    class Arguments:
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        out: Annotated[Path | None, tyro.conf.arg(help="Folder of the run; default runs/NAME of the config.")] = None

    parsed = tyro.cli(Arguments, prog=f"{prog} CONFIG", args=argv, default=Arguments(known))
    return parsed.config, parsed.out or Path("runs") / (path.stem if path else "run")


def _take_base(argv: list[str]) -> Path | None:
    """Takes --base CONFIG out of the arguments: it decides the options' defaults, so it is read before them."""
    if "--base" not in argv:
        return None
    index = argv.index("--base")
    if index + 1 == len(argv):
        raise ConfigError("--base needs a config, as in --base configs/voc-animals.toml")
    argv.pop(index)
    return Path(argv.pop(index))


def _stage_command(name: str) -> Callable[[Sequence[str]], int | None]:
    def command(argv: Sequence[str]) -> None:
        config, out = _run_arguments(argv, f"mupvss {name}")
        # Imported here so that --help and the light commands answer at once.
        from mupvss.stages.run import run_all, run_one
        from mupvss.stages.stage import Run

        run = Run(config, out)
        run_all(run) if name == "run" else run_one(run, name)

    command.__doc__ = {
        "run": "The whole job of a config: train, seeds, affinity, masks, segment, evaluate, a plain CAM beside it, report.",
        "train": "Only train the classifier with its prototypes.",
        "cam_train": "Only train the plain CAM beside it.",
        "cam": "Only search and score with the plain CAM.",
        "seeds": "Only search for seeds with a trained classifier.",
        "affinity": "Only train the affinity that refines seeds.",
        "masks": "Only make pseudo masks from seeds: affinity, random walk, dense CRF.",
        "segment": "Only train the segmentation network on the pseudo masks.",
        "val": "Only score the segmentation network on pictures it has not seen.",
        "report": "Only write the report page of what is there.",
    }[name]
    return command


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    pred: Path
    """Folder of predicted masks, palette PNGs."""
    truth: Path
    """Folder of true masks, palette PNGs; 255 is ignored."""
    num_classes: int
    """Number of classes, the background counted."""
    list: Path | None = None
    """Text file of picture names, one per line; default: every mask in TRUTH."""
    names: tuple[str, ...] = ()
    """Names of the classes for the table, without the background."""
    json: bool = False
    """Print one JSON object instead of a table."""


def evaluate(argv: Sequence[str]) -> None:
    """Score a folder of masks against another, or (given a config) the masks of its run."""
    if argv and not argv[0].startswith("-"):
        return _stage_command_evaluate(argv)
    import json

    from mupvss.data.voc import read_split
    from mupvss.evaluation.confusion import scores
    from mupvss.evaluation.folders import score_folders
    from mupvss.evaluation.table import as_json, as_table

    arguments = tyro.cli(EvaluateArguments, prog="mupvss evaluate", args=list(argv))
    if not 1 <= arguments.num_classes <= 255:
        raise DataError(f"--num-classes is {arguments.num_classes}, expected 1 to 255, the background counted")
    names = read_split(arguments.list) if arguments.list else None
    found = scores(score_folders(arguments.pred, arguments.truth, arguments.num_classes, names))
    if arguments.json:
        print(json.dumps(as_json(found)))
        return None
    labels = ["background", *arguments.names][: arguments.num_classes]
    labels += [f"class {i}" for i in range(len(labels), arguments.num_classes)]
    Console().print(as_table(found, labels, f"{arguments.pred} against {arguments.truth}"))
    return None


def _stage_command_evaluate(argv: Sequence[str]) -> None:
    config, out = _run_arguments(argv, "mupvss evaluate")
    from mupvss.stages.run import run_one
    from mupvss.stages.stage import Run

    run_one(Run(config, out), "evaluate")


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    configs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Configs to compare, each a row; a preset like methods/mctformer needs --base."""
    base: Path | None = None
    """Config whose values hold wherever the others say nothing: pictures, backbone, budget."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    out: Path = Path("runs/compare")
    """Folder of the comparison."""
    reference: str | None = None
    """Config that differences are taken from, by its file's stem; default: the last one."""
    curve: int = 0
    """Pictures for a learning curve of the first seed, which needs train.snapshots; 0: none."""
    pictures: int = 6
    """Pictures shown side by side."""
    report_only: bool = False
    """Train and search nothing; tables and pictures of what is there."""


def compare(argv: Sequence[str]) -> None:
    """Several configs, several seeds, one table with pictures: trains what is missing."""
    arguments = tyro.cli(CompareArguments, prog="mupvss compare", args=list(argv))
    from mupvss.compare.run import Comparison
    from mupvss.compare.run import compare as run_comparison

    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}
    if not arguments.configs or not arguments.seeds:
        raise ConfigError("mupvss compare needs at least one config and one seed")
    run_comparison(Comparison(**values | {"reference": arguments.reference or arguments.configs[-1].stem}))


def data(argv: Sequence[str]) -> int:
    """Look at a data set: `mupvss data check CONFIG` or with --source, --root, --tags."""
    if not argv or argv[0] != "check":
        raise ConfigError("usage: mupvss data check [CONFIG] [--source folder --root DIR --tags FILE ...]")
    from mupvss.data.check import check_data, print_findings

    rest = list(argv[1:])
    known = DataConfig()
    if rest and not rest[0].startswith("-"):
        known = load_config(Path(rest.pop(0))).data
    config = tyro.cli(DataConfig, prog="mupvss data check", args=rest, default=known)
    return 1 if print_findings(check_data(config)) else 0


COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    **{
        name: _stage_command(name)
        for name in ("run", "train", "seeds", "affinity", "masks", "segment", "val", "cam_train", "cam")
    },
    "compare": compare,
    "evaluate": evaluate,
    "report": _stage_command("report"),
    "data": data,
}


def usage() -> str:
    lines = [f"  {name:10s} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["mupvss: segmentation masks from image tags", "", *lines, "", "mupvss COMMAND --help lists a command's options."]
    )


USER_ERRORS = (ConfigError, DataError, CheckpointError, WeightsError, TrainingDivergedError, ValueError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status; what the user can mend is one clear line, without a traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(mupvss.__version__)
        return 0
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        console.print(
            f"error: no command '{escape(argv[0])}'" + (f"; did you mean '{near[0]}'?" if near else ""), highlight=False
        )
        return 2
    try:
        return COMMANDS[argv[0]](argv[1:]) or 0
    except USER_ERRORS as error:
        console.print(f"[bold red]error:[/] {escape(_one_line(error))}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", highlight=False)
        return 130


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        hint = "; free some space and run the same command again" if error.errno == 28 else ""
        return f"{where}{error.strerror}{hint}"
    return str(error) or type(error).__name__


def entry() -> None:
    """The console script."""
    sys.exit(main())
