"""Dictionaries in .npy files: what numpy wrote comes back, and nothing in a file is ever run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mupvss.data import pickled
from mupvss.data.pickled import read_npy
from mupvss.errors import DataError


def saved(path: Path, value, protocol: int | None = None) -> Path:
    """As numpy.save does, or with another version of pickle's protocol, as older versions did."""
    array = np.empty((), object)
    array[()] = value
    with path.open("wb") as stream:
        if protocol is None:
            np.save(stream, array, allow_pickle=True)
        else:
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(stream, header)
            pickle.dump(array, stream, protocol=protocol)
    return path


def same(one, other) -> bool:
    if isinstance(other, dict):
        return isinstance(one, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(other, np.ndarray):
        return one.dtype == other.dtype.newbyteorder("=") and np.array_equal(one, other, equal_nan=other.dtype.kind == "f")
    return bool(one == other) or (one != one and other != other)


ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f4", "f8", "f2", "i8", ">i2", "u1", "?"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=300) | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(max_size=3), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    value=st.dictionaries(st.integers() | st.text(max_size=3), VALUES, max_size=4),
    protocol=st.sampled_from([None, 0, 1, 2, 3, 4, 5]),
)
def test_whatever_numpy_writes_comes_back(tmp_path_factory, value, protocol):
    path = saved(tmp_path_factory.mktemp("npy") / "a.npy", value, protocol)
    found = read_npy(path)
    assert same(found, np.load(path, allow_pickle=True).item())
    assert same(found, value)


def test_numbers_of_numpy_and_columns_first(tmp_path):
    value = {np.int64(3): np.float32(0.5), 1: np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    found = read_npy(saved(tmp_path / "a.npy", value))
    assert list(found) == [3, 1]
    assert found[3] == 0.5
    assert np.array_equal(found[1], value[1])


def test_plain_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float16).reshape(2, 3))
    assert np.array_equal(read_npy(tmp_path / "a.npy"), np.load(tmp_path / "a.npy"))


def test_tensors(tmp_path):
    """IRN keeps PyTorch tensors beside arrays, also parts of larger ones."""
    whole = torch.arange(24.0).view(4, 6)
    value = {"keys": torch.tensor([2, 5]), "cam": whole[1:3, ::2], "turned": whole.t(), "high_res": np.ones((2, 3), np.float32)}
    found = read_npy(saved(tmp_path / "a.npy", value))
    for key, tensor in value.items():
        assert np.array_equal(found[key], np.asarray(tensor))
    assert found["keys"].dtype == np.int64


def test_a_tensor_in_the_place_of_its_numbers(tmp_path):
    """It could be read beyond its end."""
    stream = io.BytesIO()
    torch.save(torch.full((1,), 7.0).expand(1000), stream, _use_new_zipfile_serialization=False)

    class Fake:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (Inside(stream.getvalue()), 0, (1000,), (1,), False, {}))

    class Inside:
        def __init__(self, data):
            self.data = data

        def __reduce__(self):
            return (torch.storage._load_from_bytes, (self.data,))

    with pytest.raises(DataError, match=r"refused: a Tensor in the place|not a readable"):
        read_npy(saved(tmp_path / "a.npy", {0: Fake()}))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_of_every_kind(tmp_path, kind):
    tensor = torch.tensor([[0.0, 1.0, 3.0]]).to(kind)
    found = read_npy(saved(tmp_path / "a.npy", {0: tensor}))[0]
    assert np.array_equal(found, tensor.float().numpy() if kind == torch.bfloat16 else tensor.numpy())


def test_complex_numbers_are_refused(tmp_path):
    for value in (torch.ones(2, dtype=torch.complex64), np.ones(2, np.complex64)):
        with pytest.raises(DataError, match="refused"):
            read_npy(saved(tmp_path / "a.npy", {0: value}))


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_run(tmp_path, protocol):
    target = tmp_path / "ran"
    for value in ({0: Runs(target)}, Runs(target), {0: [Runs(target)]}):
        path = saved(tmp_path / "a.npy", value, protocol)
        with pytest.raises(DataError, match=r"a\.npy: refused: a call of (posix|nt)\.system"):
            read_npy(path)
    assert not target.exists()
    np.load(path, allow_pickle=True)
    assert target.exists()  # the file would have


@pytest.mark.parametrize(
    "value",
    [{0: {1, 2}}, {0: np.array(["a", "b"])}, {0: Path("x")}, {0: collections.Counter("aa")}, {(1, 2): 3}, {0: np.dtype("f4")}],
)
def test_other_things_are_refused(tmp_path, value):
    with pytest.raises(DataError, match="refused"):
        read_npy(saved(tmp_path / "a.npy", value))


def raw(path: Path, pickled_bytes: bytes) -> Path:
    array = np.empty((), object)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(pickled_bytes)
    return path


def test_small_files_that_want_much(tmp_path, monkeypatch):
    """Shared parts that double with every level, a list that holds itself, and an array of more than its bytes."""
    doubled: list = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    itself: list = []
    itself.append(itself)
    for value in ({0: doubled}, {0: itself}):
        with pytest.raises(DataError, match="too deep or too large"):
            read_npy(saved(tmp_path / "a.npy", value))
    large = pickle.dumps({0: np.zeros(4)}, 2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")
    with pytest.raises(DataError, match="shape"):
        read_npy(raw(tmp_path / "a.npy", large))
    marks = b"\x80\x02" + b"(" * 100_000 + b"1" * 90_000 + b"."
    shared = b"\x80\x02N" + b"2\x86" * 40 + b")R."
    begin = time.monotonic()
    for content in (marks, shared):
        with pytest.raises(DataError):
            read_npy(raw(tmp_path / "a.npy", content))
    for sides in ((2**100_000,) * 30, (1,) * 40, (-1,), "12", None):
        with pytest.raises(pickled.RefusedError):
            pickled._sides(sides)
    assert time.monotonic() - begin < 20
    again = pickle.dumps([np.zeros(300_000, np.uint8)] + [b"x"] * 60, 4)
    assert len(read_npy(raw(tmp_path / "a.npy", again))) == 61
    monkeypatch.setattr(pickled, "SPARE", 0)
    monkeypatch.setattr(pickled, "TIMES", 0.5)
    with pytest.raises(DataError, match="more bytes than the file has"):
        read_npy(raw(tmp_path / "a.npy", again))
    monkeypatch.setattr(pickled, "MOST_STEPS", 20)
    with pytest.raises(DataError, match="more than 20 instructions"):
        read_npy(saved(tmp_path / "a.npy", {0: list(range(100))}))
    monkeypatch.setattr(pickled, "LARGEST", 100)
    with pytest.raises(DataError, match="more than the 100"):
        read_npy(tmp_path / "a.npy")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_are_named_and_nothing_else_happens(tmp_path_factory, data):
    """Any byte changed, any end cut off: the same value, another value, or a DataError."""
    stream = io.BytesIO()
    np.save(stream, {0: np.ones((2, 3), np.float32), "keys": torch.tensor([1])}, allow_pickle=True)  # type: ignore[arg-type]
    whole = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        read_npy(path)
    except DataError as error:
        found = str(error)
    else:
        found = str(path)
    assert str(path) in found
