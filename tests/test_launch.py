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
