"""bfloat16 is used where the processor has units for it, and nowhere else: imitated, it is hundreds of times slower."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import pretend_bf16

from mupvss.cli.main import main
from mupvss.runtime.device import UNITS, autocast, computed_in, has_bf16, prepare

CPU = torch.device("cpu")


@pytest.mark.parametrize(("wish", "units", "expected"), [("bf16", True, "bf16"), ("bf16", False, "fp32"), ("fp32", True, "fp32")])
def test_bf16_is_a_wish(monkeypatch, wish, units, expected):
    pretend_bf16(monkeypatch, units)
    assert computed_in(CPU, wish) == expected
    with autocast(CPU, wish):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected == "bf16" else torch.float32)


def test_float32_means_float32():
    """PyTorch would multiply it in bfloat16 on a processor with units for that, if it is allowed to."""
    prepare(0, 1)
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    assert ((a @ b) - (a.double() @ b.double())).abs().max() < 1e-3  # in bfloat16 it is 0.1


def asked(monkeypatch, capabilities, older=False, mkldnn=True):
    """What a processor of these capabilities is taken for; None: PyTorch does not tell them, but `older`."""
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: older, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    return has_bf16.__wrapped__(CPU)


def test_which_processors_have_it(monkeypatch):
    assert not asked(monkeypatch, {"avx2": True, "avx512_bf16": False, "amx_bf16": False})
    assert not asked(monkeypatch, {"avx2": True, "avx512_f": True, "avx512_bf16": False})
    assert asked(monkeypatch, {"avx2": True, "avx512_bf16": True, "amx_bf16": False})
    assert asked(monkeypatch, {"neon": True, "bf16": True})
    assert not asked(monkeypatch, {"neon": True, "bf16": True}, mkldnn=False)  # as on a Mac: no kernels that use it
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert not asked(monkeypatch, {"avx2": True, "avx512_bf16": True, "amx_bf16": True})
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    assert asked(monkeypatch, None, older=True)
    assert not asked(monkeypatch, None, older=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not has_bf16.__wrapped__(CPU)


def test_pytorch_tells_of_these_units():
    """Were they called otherwise one day, every processor would be taken for one without."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    if tell is None:
        pytest.skip("this PyTorch does not tell a processor's capabilities")
    assert set(UNITS) & set(tell())


def test_a_training_says_what_it_computed_in(tmp_path, monkeypatch, capsys):
    pretend_bf16(monkeypatch, False)
    small = ["--train.image-steps", "16", "--train.batch-size", "8", "--workers", "0", "--data.scenes.train", "8"]
    main(["train", "configs/scenes.toml", *small, "--device", "cpu", "--out", str(tmp_path)])
    metrics = json.loads((tmp_path / "train" / "metrics.json").read_text())
    assert (metrics["precision"], metrics["device"]) == ("fp32", "cpu")
    assert "gpu_peak_mb" not in metrics
    assert "in float32, since this processor has no units for bfloat16" in " ".join(capsys.readouterr().err.split())
