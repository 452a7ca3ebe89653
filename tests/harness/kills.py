"""Kills a small but whole job at random moments and lets it go on, many times over: is the result always the same?

    python tests/harness/kills.py --kills 500

A round is one job in a fresh folder, killed up to `--most` times at a moment drawn anew, then left to finish. Every file but
those of the report is then compared with an unbroken run's, byte by byte; of the logs and figures, all but the times. Children
are forked from this process, which has imported everything, so that no time goes into starting up.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

# The one threading layer that may be forked; one thread computes the same everywhere.
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMBA_THREADING_LAYER="workqueue")

from numba.np.ufunc import parallel

from mupvss.cli.main import main
from mupvss.config.load import build, save_config

CONFIG = """{"threads": 1, "device": "cpu", "workers": 0, "checkpoint_every": 4, "snapshots": 2, "baseline": true,
    "data": {"scenes": {"size": 32, "train": 24, "seeds": 6}},
    "model": {"backbone": "micro", "patch_size": 8, "image_size": 32},
    "train": {"image_steps": 128, "batch_size": 4, "warmup_steps": 1},
    "affinity": {"kind": "head", "crop": 32,
                 "train": {"image_steps": 32, "batch_size": 4, "warmup_steps": 1}},
    "segment": {"crop": 32, "scales": [1.0],
                "train": {"image_steps": 32, "batch_size": 4, "warmup_steps": 1}},
    "crossfit": {"folds": 2},
    "search": {"scales": [1.0, 2.0]}}"""
TIMES = ("seconds", "peak_mb", "images_per_s")


def start(config: Path, out: Path) -> int:
    """-> the process id of a child that does the job; its exit status is the command's."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        # Shared by all that are forked from this process: one that is killed while it holds it would stop the others for ever.
        parallel._backend_init_process_lock = multiprocessing.get_context("fork").RLock()
        quiet = os.open(os.devnull, os.O_WRONLY)
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(log, 2)
        os._exit(main(["run", str(config), "--out", str(out)]))
    return child


def finished(child: int, seconds: float | None) -> int | None:
    """The exit status of a child that ends within `seconds`; None if it does not."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if not key.endswith(TIMES)}
    return value


def content(path: Path) -> object:
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def result(out: Path) -> dict[str, object]:
    return {str(p.relative_to(out)): content(p) for p in sorted(out.rglob("*")) if p.is_file() and "report" not in p.parts}


def stage_at(out: Path) -> str:
    """The stage that a kill fell into: the newest folder that is not finished."""
    begun = [path.parent for path in out.glob("*/stage.json") if not (path.parent / "metrics.json").is_file()]
    return max(begun, key=lambda path: path.stat().st_mtime).name if begun else "between stages"


def compare(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    lines = [f"lost: {name}" for name in expected.keys() - found.keys()] + [
        f"left over: {name}" for name in found.keys() - expected
    ]
    return lines + [f"different: {name}" for name in expected.keys() & found.keys() if expected[name] != found[name]]


def work(kills: int, most: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    config = folder / "config.toml"
    save_config(config, build(json.loads(CONFIG)))
    main(["run", str(config), "--out", str(folder / "warm")])  # compiles, so that children need not
    begin = time.monotonic()
    assert finished(start(config, folder / "whole"), None) == 0, (folder / "whole.log").read_text()
    length = time.monotonic() - begin
    expected = result(folder / "whole")
    print(f"unbroken: {length:.1f} s, {len(expected)} files compared", flush=True)
    done, rounds, bad, where = 0, 0, 0, collections.Counter()
    while done < kills:
        out = folder / "broken"
        shutil.rmtree(out, ignore_errors=True)
        rounds += 1
        for _ in range(rng.randint(1, most)):
            child = start(config, out)
            status = finished(child, rng.uniform(0, length / 2))
            if status is not None:
                break
            how = signal.SIGTERM if rng.random() < 0.1 else signal.SIGKILL
            os.kill(child, how)
            status = finished(child, None)
            if status != 0:  # else it was done before the signal came
                done += 1
                where[stage_at(out)] += 1
        status = finished(start(config, out), None)
        wrong = (
            compare(expected, result(out))
            if status == 0
            else [f"exit status {status}: {out.with_suffix('.log').read_text()[-500:]}"]
        )
        if wrong:
            bad += 1
            print(f"round {rounds}: {'; '.join(wrong[:5])}", flush=True)
            shutil.copytree(out, folder / f"wrong-{rounds}")
        if rounds % 20 == 0:
            print(f"{done} kills, {rounds} rounds, {bad} wrong, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{done} kills in {rounds} rounds, {bad} with a lost or different result")
    print("kills per stage: " + ", ".join(f"{name} {count}" for name, count in where.most_common()))
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--most", type=int, default=12, help="kills in one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to work in, kept; default: a temporary one")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        sys.exit(work(options.kills, options.most, options.seed, options.keep))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(work(options.kills, options.most, options.seed, Path(temporary)))
