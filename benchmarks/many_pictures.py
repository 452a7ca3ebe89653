"""Masks of thousands of pictures: does the memory stay the same, and does a killed job go on where it was?

python benchmarks/many_pictures.py RUN [--from FOLDER] [--pictures 5000] [--formats masks coco]

The pictures are links to those of a folder, or to drawn ones. They are predicted once without a stop, and once more by a job that
is killed (SIGKILL) after half of them and started again; the two results must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.data.walk import pictures_below
from mupvss.export.predict_folder import KEPT

DIFFERENT = 200


def linked(root: Path, count: int, given: Path | None) -> Path:
    """A folder of `count` pictures."""
    folder, drawn = root / "pictures", root / "drawn"
    folder.mkdir()
    if given is None:
        drawn.mkdir()
        rng = np.random.default_rng(0)
        for number in range(DIFFERENT):
            small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((128, 96), Image.Resampling.BICUBIC)
            small.save(drawn / f"{number}.jpg", quality=90)
    there = [(given or drawn) / name for name in pictures_below(given or drawn).pictures]
    for number in range(count):
        source = there[number % len(there)]
        (folder / f"{number:06d}{source.suffix}").symlink_to(source)
    return folder


def started(run: Path, pictures: Path, out: Path, formats: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mupvss", "predict", str(run), str(pictures), "--out", str(out), "--formats", *formats]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def made(out: Path) -> int:
    return sum(name.endswith(".png") for _, _, names in os.walk(out / KEPT) for name in names)


def watched(job: subprocess.Popen[bytes], out: Path, stop_at: int | None) -> list[tuple[int, float]]:
    """Waits for the job, or kills it -> (masks made, MB of its memory so far at most)."""
    seen = []
    while job.poll() is None:
        time.sleep(1)
        try:
            status = Path(f"/proc/{job.pid}/status").read_text()
        except OSError:
            break
        peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        if peak:
            seen.append((made(out), peak[0]))
        if stop_at is not None and seen and seen[-1][0] >= stop_at:
            job.kill()
            job.wait()
    return seen


def content(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and KEPT not in path.parts and path.suffix != ".log"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--from", dest="given", type=Path)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--formats", nargs="+", default=["masks", "coco"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pictures = linked(root, given.pictures, given.given.resolve() if given.given else None)
        begun = time.monotonic()
        seen = watched(started(given.run, pictures, root / "whole", given.formats), root / "whole", None)
        seconds = time.monotonic() - begun
        print(f"{given.pictures} pictures: {seconds:.0f} s, {given.pictures / seconds:.1f} a second")
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            reached = [peak for count, peak in seen if count <= share * given.pictures]
            print(f"  memory after {share:.0%}: {reached[-1] if reached else 0:.0f} MB at most")
        watched(started(given.run, pictures, root / "killed", given.formats), root / "killed", given.pictures // 2)
        kept, begun = made(root / "killed"), time.monotonic()
        job = started(given.run, pictures, root / "killed", given.formats)
        watched(job, root / "killed", None)
        print(f"killed after {kept}: went on and ended with {job.returncode} after {time.monotonic() - begun:.0f} s")
        same = content(root / "whole") == content(root / "killed")
        print(f"the same files as without the stop: {same}, {len(content(root / 'whole'))} files")
        sys.exit(not same)


if __name__ == "__main__":
    main()
