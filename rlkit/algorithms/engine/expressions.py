"""Operations element by element, and numbers, as C++."""

from __future__ import annotations

import math
from typing import Any

import torch

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "std::int64_t",
    torch.int32: "std::int32_t",
    torch.bool: "bool",
}


class Unsupported(Exception):
    """What of an update cannot be compiled."""


# {0}, {1}, ...: the values of the operands.  An operation with a "_" behind its name writes over its first operand.
EXPRESSIONS = {
    "add.Tensor": "{0} + {alpha}{1}",
    "add.Scalar": "{0} + {1}",
    "sub.Tensor": "{0} - {alpha}{1}",
    "sub.Scalar": "{0} - {1}",
    "rsub.Scalar": "{1} - {0}",
    "rsub.Tensor": "{1} - {0}",
    "mul.Tensor": "{0} * {1}",
    "mul.Scalar": "{0} * {1}",
    "div.Tensor": "{0} / {1}",
    "div.Scalar": "{0} / {1}",
    "neg.default": "-{0}",
    "abs.default": "std::abs({0})",
    "sgn.default": "({0} > 0) - ({0} < 0)",
    "sign.default": "({0} > 0) - ({0} < 0)",
    "reciprocal.default": "1 / {0}",
    "exp.default": "std::exp({0})",
    "expm1.default": "std::expm1({0})",
    "log.default": "std::log({0})",
    "log1p.default": "std::log1p({0})",
    "sqrt.default": "std::sqrt({0})",
    "rsqrt.default": "1 / std::sqrt({0})",
    "square.default": "{0} * {0}",
    "tanh.default": "std::tanh({0})",
    "sigmoid.default": "1 / (1 + std::exp(-{0}))",
    "relu.default": "{0} < 0 ? 0 : {0}",
    "tanh_backward.default": "{0} * (1 - {1} * {1})",
    "threshold_backward.default": "{1} <= {2} ? 0 : {0}",
    "minimum.default": "{0} != {0} || {0} < {1} ? {0} : {1}",
    "maximum.default": "{0} != {0} || {0} > {1} ? {0} : {1}",
    "where.self": "{0} ? {1} : {2}",
    "bitwise_or.Tensor": "{0} | {1}",
    "bitwise_and.Tensor": "{0} & {1}",
    "bitwise_not.default": "!{0}",
    "logical_or.default": "{0} || {1}",
    "logical_and.default": "{0} && {1}",
    "logical_not.default": "!{0}",
    "masked_fill.Scalar": "{1} ? {2} : {0}",
    "masked_fill.Tensor": "{1} ? {2} : {0}",
    "fill.Scalar": "{1}",
    "fill.Tensor": "{1}",
    "copy.default": "{1}",
    "clone.default": "{0}",
    "_to_copy.default": "{0}",
    "alias_copy.default": "{0}",
    "zero.default": "0",
    **{
        f"{name}.{kind}": f"{{0}} {sign} {{1}}"
        for name, sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="))
        for kind in ("Tensor", "Scalar")
    },
}


def literal(value: Any, real: str) -> str:
    """``value`` as an operand of the type ``real``, or among whole numbers where that is empty.

    Raises :class:`Unsupported` for what is no number.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float):
        raise Unsupported(f"an operand {value!r}")
    if not real:
        return f"(I){value}" if isinstance(value, int) else repr(value)
    number = float(value)
    if math.isnan(number) or math.isinf(number):
        sign = "-" if number < 0 else ""
        return f"{sign}std::numeric_limits<{real}>::{'infinity' if math.isinf(number) else 'quiet_NaN'}()"
    return f"({real}){number!r}"
