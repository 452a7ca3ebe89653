"""Reads the `.npy` files in which other projects keep dictionaries of maps, without loading a pickle.

`numpy.save` pickles whatever is not a plain array, and unpickling does what the file says, also running programs. Here the
instructions of the pickle are walked one by one. What builds dictionaries, lists, numbers, texts, NumPy arrays and PyTorch
tensors is understood and done by our own code; anything else is refused by its name, and nothing of it is run.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mupvss.errors import DataError

LARGEST = 1 << 30
"""Largest file in bytes."""
MOST_STEPS = 1_000_000
"""Most instructions of a pickle; a dictionary of eighty maps has some two thousand."""
DEEPEST = 8
"""Deepest nesting of what is read."""
MOST_VALUES = 1_000_000
"""Most values of what is read, a value counted wherever it stands."""
MOST_SIDES, LONGEST_SIDE = 32, 1 << 40
"""Most dimensions of an array, and its longest side."""
SPARE = 1 << 20
"""Arrays may take TIMES the bytes of their file, and this many more."""
TIMES = 4
PLAIN = re.compile(r"[<>|=]?[biuf]\d{1,2}$|[?]$")
"""Types of array elements that are read: truth values and numbers."""


class RefusedError(Exception):
    """The file holds something else than is understood; the text says what."""


def read_npy(path: Path) -> Any:
    """What numpy.save wrote: an array of numbers, or a dictionary or list of arrays, numbers and texts.

    Args:
        path: A `.npy` file.

    Returns:
        An array; or nested dictionaries, lists and tuples of arrays, numbers, texts and bytes. PyTorch tensors become arrays.

    Raises:
        DataError: if it cannot be read, is too large, or holds anything else.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise RefusedError(f"{size:,} bytes, more than the {LARGEST:,} that are read")
        with path.open("rb") as stream:
            return _content(stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except RefusedError as error:
        raise DataError(f"{path}: refused: {error}; expected an array, or a dictionary of arrays, numbers and texts") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    except Exception as error:
        # Damaged files: numpy, pickletools and torch raise errors without a common base class.
        raise DataError(f"{path}: not a readable .npy file ({type(error).__name__}: {error})") from None


def _content(stream: io.BufferedReader) -> Any:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise RefusedError(f"version {version[0]}.{version[1]} of the format")
    if not dtype.hasobject:
        return _array(dtype, shape, by_column, stream.read())
    if dtype != np.dtype(object):
        raise RefusedError(f"an array of {dtype}")
    return _Finish()(_Walk().run(stream.read()))


def _array(dtype: np.dtype, shape: tuple[int, ...], by_column: bool, data: bytes) -> np.ndarray:
    """Raises RefusedError unless the bytes are exactly those of such an array."""
    if not PLAIN.match(dtype.str):
        raise RefusedError(f"an array of {dtype}")
    sides = _sides(shape)
    if math.prod(sides) * dtype.itemsize != len(data):
        raise RefusedError(f"an array of shape {sides} and type {dtype} in {len(data):,} bytes")
    found = np.frombuffer(data, dtype).reshape(sides, order="F" if by_column else "C")
    return found.astype(dtype.newbyteorder("="))


def _sides(shape: Any) -> tuple[int, ...]:
    """A shape, checked before anything is multiplied."""
    if not isinstance(shape, tuple | list) or len(shape) > MOST_SIDES:
        raise RefusedError("an array without a usable shape")
    if not all(isinstance(side, int) and 0 <= side <= LONGEST_SIDE for side in shape):
        raise RefusedError("an array whose shape is no list of numbers")
    return tuple(shape)


@dataclass
class _Array:
    """An array that is being built: by _reconstruct, then by the state that follows."""

    found: Any = None


@dataclass(frozen=True)
class _Name:
    """A function or class that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class _Type:
    """The type of an array's elements."""

    text: str
    order: str = "|"

    @property
    def dtype(self) -> np.dtype:
        if not PLAIN.match(self.text):
            raise RefusedError(f"elements of type '{self.text}'")
        found = np.dtype(self.text)
        return np.dtype(self.order + found.str[1:]) if self.order in ("<", ">") else found


MARK = object()


class _Walk:
    """The stack machine of a pickle, as far as it builds data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = SPARE

    def run(self, data: bytes) -> Any:
        self.left = TIMES * len(data) + SPARE
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step >= MOST_STEPS:
                raise RefusedError(f"more than {MOST_STEPS:,} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._do(opcode.name, argument)
        raise RefusedError("no end")

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in PUSHES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name in STEPS:
            STEPS[name](self)
        elif name == "GLOBAL":
            stack.append(_Name(*argument.split(" ", 1)))
        else:
            raise RefusedError(f"the instruction {name}")

    def marked(self) -> list[Any]:
        """Takes what is above the last mark, and the mark."""
        place = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is MARK)
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def pairs(self, values: list[Any]) -> Iterator[tuple[Any, Any]]:
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, _Array):
                key = key.found  # a NumPy number, as PSA's keys may be
            if not isinstance(key, str | int | float | np.number):
                raise RefusedError(f"a key of type {type(key).__name__}")
            yield (key.item() if isinstance(key, np.number) else key), value

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise RefusedError(f"items for a {type(target).__name__}")
        target.update(self.pairs(values))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedError(f"elements for a {type(target).__name__}")
        target.extend(values)

    def tuple_of(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(found)

    def named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("a name that is no text")
        self.stack.append(_Name(module, name))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or str(function) not in CALLS or not isinstance(arguments, tuple):
            raise RefusedError(f"a call of {function if isinstance(function, _Name) else type(function).__name__}")
        made = CALLS[str(function)](*arguments)
        self.stack.append(made)
        self.spend(made)

    def spend(self, made: Any) -> None:
        """Counts the bytes of what was made, since a few bytes of a file can name the same data many times."""
        found = made.found if isinstance(made, _Array) else made
        self.left -= found.nbytes if isinstance(found, np.ndarray) else 0
        if self.left < 0:
            raise RefusedError("arrays of more bytes than the file has")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Type) and isinstance(state, tuple) and not any(state[2:5]):
            target.order = state[1]
        elif isinstance(target, _Array) and isinstance(state, tuple):
            _, shape, kind, by_column, data = state
            target.found = _filled(kind, shape, by_column, data)
            self.spend(target)
        else:
            raise RefusedError(f"a state for a {type(target).__name__}")


def _filled(kind: Any, shape: Any, by_column: Any, data: Any) -> Any:
    if not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise RefusedError("an array without a type or shape")
    if kind.text.lstrip("|") in ("O", "O4", "O8"):  # of Python objects: the outermost, which holds the dictionary
        if not isinstance(data, list) or len(shape) > 1 or math.prod(_sides(shape)) != len(data):
            raise RefusedError("an array of objects of another shape than its list")
        return data if shape else data[0]
    return _array(kind.dtype, shape, bool(by_column), _bytes(data))


def _bytes(data: Any) -> bytes:
    """Python 2 wrote bytes as text."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise RefusedError(f"data of type {type(data).__name__}")
    return bytes(data)


def _number(kind: _Type, data: Any) -> _Array:
    return _Array(_array(kind.dtype, (1,), False, _bytes(data))[0])


def _from_buffer(data: Any, kind: _Type, shape: Any, order: str, *others: Any) -> _Array:
    if others:
        raise RefusedError("an array with its axes exchanged; save a copy of it")
    return _Array(_filled(kind, shape, order == "F", data))


def _no_bytes(*arguments: Any) -> bytes:
    """How protocols before 3 write empty bytes."""
    if arguments:
        raise RefusedError("a call of bytes")
    return b""


def _encoded(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("bytes in another encoding than Latin-1")
    return text.encode("latin-1")


def _storage(data: Any) -> np.ndarray:
    """What torch.save made of a storage, in the form without compression that tensors in pickles have: its numbers, one after the
    other. It is read with weights_only."""
    content = _bytes(data)
    if content.startswith(b"PK"):
        raise RefusedError("a tensor in an archive")
    found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(found, torch.UntypedStorage | torch.TypedStorage):
        raise RefusedError(f"a {type(found).__name__} in the place of a tensor's numbers")
    kind = torch.uint8 if isinstance(found, torch.UntypedStorage) else found.dtype
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TypedStorage")  # older files have no other kind
        untyped = found if isinstance(found, torch.UntypedStorage) else found.untyped()
    numbers = torch.tensor([], dtype=torch.uint8).set_(untyped).view(kind)
    if kind == torch.bfloat16:
        numbers = numbers.float()
    if kind.is_complex or not PLAIN.match(numbers.numpy().dtype.str):
        raise RefusedError(f"a tensor of {kind}")
    return np.ascontiguousarray(numbers.numpy())


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> _Array:
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or not storage.flags.c_contiguous:
        raise RefusedError("a tensor without its storage")
    if len(others) > 2 and others[2]:
        raise RefusedError("a tensor with marks, such as of a sign or a conjugate")
    sides, steps, (first,) = _sides(shape), _sides(strides), _sides((offset,))
    if len(sides) != len(steps):
        raise RefusedError(f"a tensor of shape {sides}")
    count = math.prod(sides)
    last = first + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if count and (last >= len(storage) or count > len(storage)):
        raise RefusedError(f"a tensor of shape {sides} in a storage of {len(storage):,} numbers")
    if not count:
        return _Array(np.zeros(sides, storage.dtype))
    jumps = tuple(storage.itemsize * step for step in steps)
    return _Array(np.lib.stride_tricks.as_strided(storage[first:], sides, jumps).copy())


PUSHES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Instructions that put their argument on the stack."""
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: MARK,
}
STEPS: dict[str, Callable[[_Walk], Any]] = {
    "POP": lambda walk: walk.stack.pop(),
    "POP_MARK": lambda walk: walk.marked(),
    "DUP": lambda walk: walk.stack.append(walk.stack[-1]),
    "DICT": lambda walk: walk.stack.append(dict(walk.pairs(walk.marked()))),
    "LIST": lambda walk: walk.stack.append(walk.marked()),
    "TUPLE": lambda walk: walk.stack.append(tuple(walk.marked())),
    "TUPLE1": lambda walk: walk.tuple_of(1),
    "TUPLE2": lambda walk: walk.tuple_of(2),
    "TUPLE3": lambda walk: walk.tuple_of(3),
    "SETITEM": lambda walk: walk.set_items([*reversed((walk.stack.pop(), walk.stack.pop()))]),
    "SETITEMS": lambda walk: walk.set_items(walk.marked()),
    "APPEND": lambda walk: walk.append([walk.stack.pop()]),
    "APPENDS": lambda walk: walk.append(walk.marked()),
    "STACK_GLOBAL": _Walk.named,
    "REDUCE": _Walk.reduce,
    "BUILD": _Walk.build,
}
CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": lambda text, *_: _Type(text if isinstance(text, str) else ""),
    "_codecs.encode": _encoded,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "collections.OrderedDict": lambda: {},
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
"""What a file may call, and what is done in its place."""
for _core in ("numpy.core", "numpy._core"):  # NumPy 2 has renamed it
    CALLS[f"{_core}.multiarray._reconstruct"] = lambda *_: _Array()
    CALLS[f"{_core}.multiarray.scalar"] = _number
    CALLS[f"{_core}.numeric._frombuffer"] = _from_buffer


class _Finish:
    """Puts finished arrays in the place of those that were being built."""

    def __init__(self) -> None:
        self.values = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.values += 1
        if depth > DEEPEST or self.values > MOST_VALUES:
            raise RefusedError("too deep or too large a structure")
        if isinstance(value, _Array):
            return self(value.found, depth + 1)
        if isinstance(value, dict):
            return {key: self(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(entry, depth + 1) for entry in value)
        if value is None or isinstance(value, str | bytes | bytearray | int | float | np.ndarray | np.number | np.bool_):
            return value
        raise RefusedError(f"{value}" if isinstance(value, _Name) else f"a {type(value).__name__}")
