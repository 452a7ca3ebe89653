"""What the command sets before PyTorch is loaded, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mupvss.runtime.launch import SPINS, WAITING, wait_briefly


def test_wait_briefly_sets_a_short_spin_and_never_over_the_users_own():
    environment = {}
    wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": SPINS}
    for name in WAITING:
        own = {name: "mine"}
        wait_briefly(own)
        assert own == {name: "mine"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import mupvss, mupvss.cli", "None False"),
        (
            "import runpy\ntry: runpy.run_module('mupvss', run_name='__main__')\nexcept SystemExit: pass",
            f"{SPINS} False",
        ),
    ],
    ids=["import", "command"],
)
def test_wait_briefly_is_called_by_the_command_before_pytorch_and_not_by_an_import(code, expected):
    """Printed: the setting, and whether PyTorch is loaded by then."""
    after = "\nimport os, sys\nprint(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    command = [sys.executable, "-c", "import sys\nsys.argv = ['mupvss', '--version']\n" + code + after]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == expected


def test_the_speed_in_a_log_is_that_of_the_last_minute(monkeypatch, capsys):
    """A pause, as for the preview, must not spoil the estimate for the rest."""
    from mupvss.runtime import log

    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    plain = log._PlainProgress("train", 4000, "images", 0, False)
    lines = []
    monkeypatch.setattr(log.console, "print", lambda text, **style: lines.append(text))
    for second in range(400):
        now[0] += 1 + 150 * (second == 100)
        plain.advance(10, "")
    assert len(lines) >= 10
    assert sum(", 10.0/s, " not in line for line in lines) == 3, "the pause counts for a minute"
    assert lines[6].startswith("train: 2000/4000 images, 10.0/s, 200 s left")
    assert lines[-1] == "train: 4000/4000 images, 10.0/s, 0 s left"
