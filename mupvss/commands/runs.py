"""Commands of one config: the whole job, or one of its stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mupvss.config.load import load_config
from mupvss.config.schema import RunConfig
from mupvss.errors import ConfigError


def run_arguments(argv: Sequence[str], prog: str) -> tuple[RunConfig, Path]:
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
        out: Annotated[Path | None, tyro.conf.arg(help="Folder of the run; default runs/NAME for a config NAME.toml.")] = None

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


def stage_command(name: str) -> Callable[[Sequence[str]], int | None]:
    def command(argv: Sequence[str]) -> None:
        config, out = run_arguments(argv, f"mupvss {name}")
        # Imported here so that --help and the light commands answer at once.
        from mupvss.engine.processes import use_cpu
        from mupvss.stages.run import run_all, run_one
        from mupvss.stages.stage import Run

        if config.device == "cpu":
            use_cpu()
        run = Run(config, out)
        run_all(run) if name == "run" else run_one(run, name)

    command.__doc__ = SUMMARIES[name]
    return command


SUMMARIES = {
    "run": "The whole job of a config: train, seeds, affinity, masks, segment, evaluate, a plain CAM beside it, report.",
    "train": "Only train the classifier with its prototypes.",
    "cam_train": "Only train the plain CAM beside it.",
    "cam": "Only search and score with the plain CAM.",
    "seeds": "Only search for seeds with a trained classifier.",
    "affinity": "Only train the affinity that refines seeds.",
    "masks": "Only make pseudo masks from seeds: affinity, random walk, dense CRF.",
    "segment": "Only train the segmentation network on the pseudo masks.",
    "val": "Only score the segmentation network on the pictures kept for that.",
    "report": "Only write the report page of what is there.",
}
