"""Two vector operations that numba's compiler does not find by itself: a weighted sum of table rows, and its transpose.

The compiler must assume that rows of a table overlap, and its run-time checks cost more than the sums. Here the lengths are
literals and nothing overlaps, so that everything stays in registers.

Measured against the same sums as plain loops in numba, the whole CRF (three VOC pictures, 10 steps, two cores with AVX-512) is
1.7 times as fast with 4 labels, 1.2 with 8 and 1.5 with 21; the geometric mean is 1.4. Below 1.3 this file would not be worth
keeping.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

ROWS = 9
"""Vertices per pixel: three in the lattice of positions, six in that of positions and colours."""
INT32, INT64, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()


@intrinsic
def gather_rows(typing_context, out, at, base, base_at, table, offsets, weights, first, count):  # type: ignore[no-untyped-def]
    """out[at : at + count] = base[base_at : ...] + sum over k < ROWS of weights[first + k] * table[offsets[first + k]].

    Flat float32 arrays, table as if of shape (., count); offsets int32; count a literal multiple of 4.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None  # numba then tries again with the literal
    signature = types.void(out, at, base, base_at, table, offsets, weights, first, count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, start, unary, place, values, indices, factors, begin = _pointers(context, builder, signature, arguments)
        chosen = _rows(builder, values, indices, factors, begin, count.literal_value)
        for done, kind in _chunks(count.literal_value):
            total = _load(builder, unary, place, done, kind)
            for row, factor in chosen:
                part = _load(builder, row, INT64(0), done, kind)
                total = builder.fadd(total, builder.fmul(_spread(builder, factor, kind), part, flags=("fast",)), flags=("fast",))
            builder.store(total, _at(builder, to, start, done, kind), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scatter_rows(typing_context, vector, at, table, offsets, weights, first, scale, count):  # type: ignore[no-untyped-def]
    """table[offsets[first + k]] += scale * weights[first + k] * vector[at : at + count], for k < ROWS in turn."""
    if not isinstance(count, types.IntegerLiteral):
        return None  # numba then tries again with the literal
    signature = types.void(vector, at, table, offsets, weights, first, types.float32, count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, start, values, indices, factors, begin, scale = _pointers(context, builder, signature, arguments)
        chosen = _rows(builder, values, indices, factors, begin, count.literal_value)
        parts = [(done, kind, _load(builder, source, start, done, kind)) for done, kind in _chunks(count.literal_value)]
        for row, factor in chosen:
            factor = builder.fmul(factor, scale, flags=("fast",))
            for done, kind, part in parts:
                place = _at(builder, row, INT64(0), done, kind)
                product = builder.fmul(_spread(builder, factor, kind), part, flags=("fast",))
                builder.store(builder.fadd(builder.load(place, align=4), product, flags=("fast",)), place, align=4)
        return context.get_dummy_value()

    return signature, generate


def _pointers(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """The arguments before the literal, arrays as pointers to their data."""
    found = []
    for kind, value in zip(signature.args[:-1], arguments[:-1], strict=True):
        is_array = isinstance(kind, types.Array)
        found.append(context.make_array(kind)(context, builder, value).data if is_array else value)
    return found


def _rows(builder: Any, table: Any, offsets: Any, weights: Any, first: Any, count: int) -> list[tuple[Any, Any]]:
    """(pointer to the row, weight) of each row."""
    found = []
    for k in range(ROWS):
        index = builder.add(first, INT64(k))
        offset = builder.sext(builder.load(builder.gep(offsets, [index])), INT64)
        row = builder.gep(table, [builder.mul(offset, INT64(count))])
        found.append((row, builder.load(builder.gep(weights, [index]))))
    return found


def _chunks(count: int) -> list[tuple[int, ir.VectorType]]:
    """Start and type of the vectors that make up `count` floats."""
    found, done = [], 0
    while done < count:
        width = next(w for w in (16, 8, 4) if w <= count - done)
        found.append((done, ir.VectorType(FLOAT, width)))
        done += width
    return found


def _at(builder: Any, pointer: Any, start: Any, done: int, kind: ir.VectorType) -> Any:
    place = builder.gep(pointer, [builder.add(start, INT64(done))])
    return builder.bitcast(place, kind.as_pointer())


def _load(builder: Any, pointer: Any, start: Any, done: int, kind: ir.VectorType) -> Any:
    return builder.load(_at(builder, pointer, start, done, kind), align=4)


def _spread(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """The value in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane = builder.insert_element(undefined, value, INT32(0))
    return builder.shuffle_vector(lane, undefined, ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count))
