"""Sixteen float32 numbers at once, as a type in loops that Numba compiles.

LLVM makes them one register or several, whatever the processor has, and a loop can hold its sums in
them: Numba's own loops over sixteen numbers go to memory and back. They are made by `load` and
`spread`, and know +, - and *.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_WIDE = ir.VectorType(ir.FloatType(), LANES)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Vector")


_vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WIDE)


@intrinsic
def load(typing: Any, row: Any, start: Any) -> Any:
    """Return row[start : start + LANES] of a contiguous float32 row, unchecked."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(context, builder, signature, values), align=4)

    return _vector(row, types.int64), code


@intrinsic
def store(typing: Any, row: Any, start: Any, vector: Any) -> Any:
    """Write row[start : start + LANES], unchecked."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _place(context, builder, signature, values), align=4)
        return context.get_dummy_value()

    return types.void(row, types.int64, _vector), code


def _prefetch(is_written: int) -> Any:
    @intrinsic
    def fetch(typing: Any, row: Any, start: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            place, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [place, number, number, number])
            name = "llvm.prefetch.p0"
            function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            line = builder.bitcast(_place(context, builder, signature, values), place)
            builder.call(function, [line, *(number(value) for value in (is_written, 3, 1))])
            return context.get_dummy_value()

        return types.void(row, types.int64), code

    return fetch


fetch, fetch_to_write = _prefetch(0), _prefetch(1)
"""Have the cache get the line of row[start], to be read or to be written soon. Not an access: the
place may be past the row's end."""


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """Return a float32 number in every lane."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        unset, zero = ir.Constant(_WIDE, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        first = builder.insert_element(unset, values[0], zero)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, unset, zeros)

    return _vector(types.float32), code


@intrinsic
def fma(typing: Any, left: Any, right: Any, total: Any) -> Any:
    """Return left * right + total, rounded once where the processor can.

    `llvm.fma` would call the C library sixteen times where it cannot, as on a virtual machine's.
    """

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_WIDE, [_WIDE] * 3)
        name = f"llvm.fmuladd.v{LANES}f32"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, values)

    return _vector(_vector, _vector, _vector), code


def _place(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    row = context.make_array(signature.args[0])(context, builder, values[0])
    return builder.bitcast(builder.gep(row.data, [values[1]]), _WIDE.as_pointer())


def _declare(operation: Any, instruction: str) -> None:
    """Have an operator of two vectors be an instruction."""

    @intrinsic
    def apply(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, instruction)(*values)

        return _vector(_vector, _vector), code

    @overload(operation)
    def choose(left, right):  # type: ignore[no-untyped-def]  # Numba compares it with the lambda
        if isinstance(left, _Vector) and isinstance(right, _Vector):
            return lambda left, right: apply(left, right)
        return None


_declare(operator.add, "fadd")
_declare(operator.sub, "fsub")
_declare(operator.mul, "fmul")
