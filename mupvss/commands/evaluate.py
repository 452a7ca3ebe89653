"""`mupvss evaluate`: one folder of masks against another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from mupvss.commands.runs import run_arguments
from mupvss.errors import DataError


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
    config, out = run_arguments(argv, "mupvss evaluate")
    from mupvss.stages.run import run_one
    from mupvss.stages.stage import Run

    run_one(Run(config, out), "evaluate")
