"""A recorded update as C++: products with what follows them fused in, everything else a loop an operation.

Networks' activations are laid out feature by feature, so that the products of a pass and of its backward pass read and
write whole registers along the batch; gradients of weights lie as the weights do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlkit.algorithms.engine.expressions import EXPRESSIONS, TYPES, Unsupported, literal
from rlkit.algorithms.engine.record import Node, Place, Store, places

ALIGNED = 64  # bytes
MEMORY_ONLY = ("empty", "empty_like", "new_empty", "empty_strided")  # no values of their own
SPECIAL = (
    *("clamp", "pow", "cat", "slice_scatter", "index_select", "index", "sum", "mean", "max", "amax", "std"),
    *("mm", "addmm", "fused_adam", "foreach_add", "foreach_lerp"),
)
VALUED = {"full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}  # which argument fills them
FILLED = {"zeros": 0, "zeros_like": 0, "new_zeros": 0, "ones": 1, "ones_like": 1, "new_ones": 1}


@dataclass
class Part:
    """C++ that runs without the host; ``externals`` are what its table of pointers holds, in order."""

    text: str
    externals: list[Store]


@dataclass
class Lowered:
    """The steps of one update in order: a :class:`Part`, or a :class:`Node` of the host."""

    steps: list[Part | Node] = field(default_factory=list)
    offsets: dict[Store, int] = field(default_factory=dict)  # bytes into the arena
    turned: set[Store] = field(default_factory=set)
    size: int = 0  # bytes of the arena
    scratch: int = 0  # floats that products pack into, behind the arena
    adams: list[Node] = field(default_factory=list)  # whose learning rates a part reads, in order


def lower(nodes: Sequence[Node]) -> Lowered:
    """The program of recorded ``nodes``.

    Raises :class:`Unsupported` for an operation that it has no C++ for.
    """
    kept = _needed(nodes)
    draws = [node for node in kept if node.draws]  # of nothing computed: all before the first part
    kept = [*draws, *_fused([node for node in kept if not node.draws])]
    return _Lowering(kept).result


def _short(node: Node) -> str:
    return str(node.target).removeprefix("aten.")


def _is_view(node: Node) -> bool:
    return not node.host and not node.written


def _needed(nodes: Sequence[Node]) -> list[Node]:
    """Those that something lasting depends on; draws too, as generators have to move on."""
    needed: set[Store] = set()
    kept = []
    for node in reversed(nodes):
        if _is_view(node):
            if not node.outs:
                raise Unsupported(f"it reads a value back ({node.line})")
            continue
        if node.draws and any(not p.store.external and p not in node.written for p in node.read):
            raise Unsupported(f"a draw depends on what was computed ({node.line})")
        lasting = node.host or node.draws or any(p.store.external or p.store in needed for p in node.written)
        if lasting:
            kept.append(node)
            needed |= {place.store for place in node.read}
    return kept[::-1]


def _fused(nodes: Sequence[Node]) -> list[Node]:
    """Products with the ReLU over them, or the mask of one, as one node: its ``kwargs`` say which."""
    users: dict[Store, list[int]] = {}
    for i, node in enumerate(nodes):
        for place in [*node.read, *node.written]:
            if not users.get(place.store) or users[place.store][-1] != i:
                users.setdefault(place.store, []).append(i)
    gone: set[int] = set()
    fused = []
    for i, node in enumerate(nodes):
        if i in gone:
            continue
        if not node.host and _short(node) in ("addmm.default", "mm.default"):
            out = node.outs[0]
            later = [j for j in users[out.store] if j > i]
            after = nodes[later[0]] if later else None
            if after is not None and not after.host:
                same = bool(after.args) and after.args[0] == out
                if _short(after) == "relu_.default" and same:
                    node = Node(
                        node.line, node.target, node.args, {**node.kwargs, "relu": True}, node.outs, node.written
                    )
                    gone.add(later[0])
                elif _short(after) == "threshold_backward.default" and same and len(later) == 1 and after.args[2] == 0:
                    mask, kwargs = after.args[1], {**node.kwargs, "mask": after.args[1]}
                    ready = all(not (i < j < later[0]) or mask.store not in {p.store for p in nodes[j].written}
                                for j in users[mask.store])  # fmt: skip
                    if ready and mask.strides == after.outs[0].strides and mask.sizes == out.sizes:
                        node = Node(node.line, node.target, node.args, kwargs, after.outs, after.written)
                        gone.add(later[0])
        fused.append(node)
    return fused


class _Lowering:
    def __init__(self, nodes: Sequence[Node]):
        self.result = Lowered()
        self.result.turned = _turned(nodes)
        self._plan(nodes)
        self.lines: list[str] = []
        self.externals: list[Store] = []
        for node in nodes:
            if node.host or node.draws:
                self._flush()
                self.result.steps.append(node)
            else:
                try:
                    self._node(node)
                except Unsupported as error:
                    raise Unsupported(f"there is no C++ for {error} ({node.line})") from None
        self._flush()

    # ---- memory ----------------------------------------------------------------------------------------------------

    def _plan(self, nodes: Sequence[Node]) -> None:
        """Give every store that is made a place in the arena, shared by those that are not there at the same time."""
        first: dict[Store, int] = {}
        last: dict[Store, int] = {}
        for i, node in enumerate(nodes):
            for place in [*node.read, *node.written, *node.outs]:
                if not place.store.external:
                    first.setdefault(place.store, i)
                    last[place.store] = max(i, last.get(place.store, 0))
        free: list[tuple[int, int]] = []  # size, offset
        ends: dict[int, list[Store]] = {}
        for store, i in last.items():
            ends.setdefault(i, []).append(store)
        begins: dict[int, list[Store]] = {}
        for store, i in first.items():
            begins.setdefault(i, []).append(store)
        result, sizes = self.result, {}
        for i in range(len(nodes)):
            for store in begins.get(i, []):
                size = -(-max(store.size, 1) // ALIGNED) * ALIGNED
                fitting = [hole for hole in free if size <= hole[0] <= 2 * size]
                hole = min(fitting) if fitting else (size, result.size)
                if fitting:
                    free.remove(hole)
                else:
                    result.size += size
                sizes[store], result.offsets[store] = hole
            for store in ends.get(i, []):
                free.append((sizes[store], result.offsets[store]))

    def strides(self, place: Place) -> tuple[int, ...]:
        return _mapped(place, place.store in self.result.turned)[1]

    def at(self, place: Place) -> str:
        """A C++ expression for the address of the first element."""
        offset = _mapped(place, place.store in self.result.turned)[0]
        kind = TYPES.get(place.dtype)
        if kind is None:
            raise Unsupported(f"numbers of type {str(place.dtype).removeprefix('torch.')}")
        if place.store.external:
            if place.store not in self.externals:
                self.externals.append(place.store)
            return f"(({kind}*)e[{self.externals.index(place.store)}] + {offset})"
        return f"(({kind}*)(arena + {self.result.offsets[place.store]}) + {offset})"

    def _flush(self) -> None:
        if self.lines:
            self.result.steps.append(Part("\n".join(self.lines), self.externals))
        self.lines, self.externals = [], []

    # ---- operations ------------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        name = _short(node)
        short, _, overload = name.partition(".")
        special = getattr(self, f"_{short.strip('_')}") if short.strip("_") in SPECIAL else None
        in_place = short.endswith("_") and f"{short[:-1]}.{overload}" in EXPRESSIONS
        if special is not None:
            special(node)
        elif in_place:
            self._elementwise(EXPRESSIONS[f"{short[:-1]}.{overload}"], node.args[0], node.args, node.kwargs)
        elif name in EXPRESSIONS:
            self._elementwise(EXPRESSIONS[name], node.outs[0], node.args, node.kwargs)
        elif short in VALUED or short in FILLED:
            value = FILLED[short] if short in FILLED else node.args[VALUED[short]]
            self._elementwise("{0}", node.outs[0], [value], {})
        elif short not in MEMORY_ONLY:
            raise Unsupported(f"the operation {name}")

    def _elementwise(self, expression: str, out: Place, operands: Sequence[Any], kwargs: Any) -> None:
        tensors = [_broadcast(item, out.sizes) if isinstance(item, Place) else item for item in operands]
        inputs = [item for item in tensors if isinstance(item, Place)]
        loops, body = self._nest(out.sizes, [out, *inputs])
        known = {torch.float32, torch.float64} & {item.dtype for item in [*inputs, out]}
        real = "double" if torch.float64 in known else "float" if known else ""
        values, seen = [], 1
        for item in tensors:
            if isinstance(item, Place):
                values.append(body[seen])
                seen += 1
            else:
                values.append(literal(item, real))
        alpha = kwargs.get("alpha", 1)
        text = expression.format(*values, alpha="" if alpha == 1 else f"{literal(alpha, real)} * ")
        self.lines.append(f"{loops}{body[0]} = {text};")

    def _nest(self, sizes: Sequence[int], operands: Sequence[Place]) -> tuple[str, list[str]]:
        """``for`` loops over ``sizes`` and each operand's element within them; the first operand's order decides."""
        strides = [self.strides(place) for place in operands]
        order = sorted((d for d, n in enumerate(sizes) if n != 1), key=lambda d: -strides[0][d])
        dims: list[tuple[int, list[int]]] = []
        for d in order:
            here = [own[d] for own in strides]
            if dims and all(a == b * sizes[d] for a, b in zip(dims[-1][1], here, strict=True)):
                dims[-1] = (dims[-1][0] * sizes[d], here)
            else:
                dims.append((sizes[d], here))
        loops = "".join(f"for (I i{k} = 0; i{k} < {n}; i{k}++) " for k, (n, _) in enumerate(dims))
        found = []
        for position, place in enumerate(operands):
            terms = [f"i{k}" if s[position] == 1 else f"{s[position]} * i{k}" for k, (_, s) in enumerate(dims)
                     if s[position]]  # fmt: skip
            found.append(f"{self.at(place)}[{' + '.join(terms) or 0}]")
        return loops, found

    def _clamp(self, node: Node) -> None:
        bounds = [*node.args[1:], None, None][:2]
        low, high = (node.kwargs.get(name, bound) for name, bound in zip(("min", "max"), bounds, strict=True))
        text, operands = "{0}", [node.args[0]]
        for sign, bound in (("<", low), (">", high)):
            if bound is not None:
                operands.append(bound)
                text = f"({text} {sign} {{{len(operands) - 1}}} ? {{{len(operands) - 1}}} : {text})"
        self._elementwise(text, node.outs[0], operands, {})

    def _pow(self, node: Node) -> None:
        base, power = node.args
        texts = {0: "1", 0.5: "std::sqrt({0})", 1: "{0}", 2: "{0} * {0}", 3: "{0} * {0} * {0}", -1: "1 / {0}"}
        if not isinstance(power, int | float) or power not in texts:
            raise Unsupported(f"the power {power}")
        self._elementwise(texts[power], node.outs[0], [base], {})

    def _cat(self, node: Node) -> None:
        out, dim = node.outs[0], (node.args[1] if len(node.args) > 1 else 0) % len(node.outs[0].sizes)
        start = 0
        for item in node.args[0]:
            if item.sizes == (0,):  # an empty one of any shape may stand there
                continue
            here = Place(out.store, out.offset + start * out.strides[dim], item.sizes, out.strides, out.dtype)
            self._elementwise("{0}", here, [item], {})
            start += item.sizes[dim]

    def _slice_scatter(self, node: Node) -> None:
        out, (base, part, dim, first), step = node.outs[0], node.args[:4], (*node.args[5:], 1)[0]
        self._elementwise("{0}", out, [base], {})
        strides = [s * step if d == dim else s for d, s in enumerate(out.strides)]
        start = out.offset + out.strides[dim] * (first or 0)
        self._elementwise("{0}", Place(out.store, start, part.sizes, tuple(strides), out.dtype), [part], {})

    def _index_select(self, node: Node) -> None:
        source, dim, index = node.args
        self._gather(node.outs[0], source, dim, index)

    def _index(self, node: Node) -> None:
        source, indices = node.args
        if len(indices) != 1 or indices[0] is None or indices[0].dtype != torch.int64 or len(indices[0].sizes) != 1:
            raise Unsupported("an index of that form")
        self._gather(node.outs[0], source, 0, indices[0])

    def _gather(self, out: Place, source: Place, dim: int, index: Place) -> None:
        if dim != 0:
            raise Unsupported("a selection of columns")
        row = Place(source.store, source.offset, (1, *source.sizes[1:]), (0, *source.strides[1:]), source.dtype)
        sizes = out.sizes[1:]
        loops, (to, of) = self._nest((1, *sizes), [Place(out.store, out.offset, (1, *sizes), (0, *out.strides[1:]),
                                                         out.dtype), row])  # fmt: skip
        wide, far = self.strides(out)[0], self.strides(source)[0]
        to, of = _shifted(to, f"{wide} * r"), _shifted(of, f"{far} * from")
        step = self.strides(index)[0]
        self.lines.append(
            f"for (I r = 0; r < {out.sizes[0]}; r++) {{ const I from = {self.at(index)}[{step} * r]; "
            f"{loops}{to} = {of}; }}"
        )

    # ---- reductions ------------------------------------------------------------------------------------------------

    def _sum(self, node: Node) -> None:
        self._reduce(node, "sum")

    def _mean(self, node: Node) -> None:
        self._reduce(node, "mean")

    def _max(self, node: Node) -> None:
        if _short(node) != "max.default":
            raise Unsupported(f"the operation {_short(node)}")
        self._reduce(node, "max")

    def _amax(self, node: Node) -> None:
        self._reduce(node, "max")

    def _reduce(self, node: Node, kind: str) -> None:
        source, out = node.args[0], node.outs[0]
        rank = len(source.sizes)
        dims = node.args[1] if len(node.args) > 1 and node.args[1] is not None else []
        dims = [d % rank for d in (dims if isinstance(dims, list | tuple) else [dims])] or list(range(rank))
        keep = [d for d in range(rank) if d not in dims]
        if out.dtype not in (torch.float32, torch.float64) or source.dtype != out.dtype:
            raise Unsupported(f"the operation {_short(node)} of {source.dtype} to {out.dtype}")
        count = math.prod(source.sizes[d] for d in dims)
        to = self.strides(out)
        if len(to) == rank:  # keepdim
            to = tuple(to[d] for d in keep)
        of = self.strides(source)
        over = _merged([(source.sizes[d], (of[d],)) for d in sorted(dims, key=lambda d: -of[d])])
        kept = [(source.sizes[d], of[d], to[k]) for k, d in enumerate(keep) if source.sizes[d] != 1]
        kind_ = TYPES[out.dtype]
        outer = "".join(f"for (I k{j} = 0; k{j} < {n}; k{j}++) " for j, (n, _, _) in enumerate(kept))
        start = f"{self.at(source)}" + "".join(f" + {s} * k{j}" for j, (_, s, _) in enumerate(kept))
        place = f"{self.at(out)}[{' + '.join(f'{s} * k{j}' for j, (_, _, s) in enumerate(kept)) or 0}]"
        if kind == "max":
            inner = "".join(f"for (I r{j} = 0; r{j} < {n}; r{j}++) " for j, (n, _) in enumerate(over))
            at = " + ".join(f"{s[0]} * r{j}" for j, (_, s) in enumerate(over)) or "0"
            self.lines.append(
                f"{outer}{{ const {kind_}* x = {start}; {kind_} best = -std::numeric_limits<{kind_}>::infinity(); "
                f"{inner}if (x[{at}] > best || x[{at}] != x[{at}]) best = x[{at}]; {place} = best; }}"
            )
            return
        scale = f" / {count}" if kind == "mean" else ""
        *further, (n, (step,)) = over or [(1, (0,))]
        inner = "".join(f"for (I r{j} = 0; r{j} < {m}; r{j}++) " for j, (m, _) in enumerate(further))
        at = "".join(f" + {s[0]} * r{j}" for j, (_, s) in enumerate(further))
        if out.dtype == torch.float64:
            each = f"for (I q = 0; q < {n}; q++) sum += (x{at})[{step} * q];"
        elif kept and kept[-1][1] == 1 and step != 1 and not further:  # side by side are sums, not what is summed
            *rest, (wide, _, apart) = kept
            outer = "".join(f"for (I k{j} = 0; k{j} < {m}; k{j}++) " for j, (m, _, _) in enumerate(rest))
            start = f"{self.at(source)}" + "".join(f" + {s} * k{j}" for j, (_, s, _) in enumerate(rest))
            base = f"{self.at(out)}" + "".join(f" + {s} * k{j}" for j, (_, _, s) in enumerate(rest))
            self.lines.append(
                f"{outer}{{ const float* x = {start}; float* y = {base}; float sums[{wide}] = {{}}; "
                f"for (I q = 0; q < {n}; q++) for (I k = 0; k < {wide}; k++) sums[k] += x[{step} * q + k]; "
                f"for (I k = 0; k < {wide}; k++) y[{apart} * k] = sums[k]{scale}; }}"
            )
            return
        else:
            each = f"sum += total(x{at}, {n}, {step});"
        self.lines.append(
            f"{outer}{{ const {kind_}* x = {start}; double sum = 0; {inner}{each} {place} = ({kind_})(sum{scale}); }}"
        )

    def _std(self, node: Node) -> None:
        source, out = node.args[0], node.outs[0]
        if out.sizes or node.kwargs.get("correction", 1) != 0 or source.dtype != torch.float32:
            raise Unsupported("a standard deviation of that form")
        count = math.prod(source.sizes)
        one = Place(source.store, source.offset, source.sizes, source.strides, source.dtype)
        loops, (value,) = self._nest(source.sizes, [one])
        self.lines.append(
            f"{{ double sum = 0, squares = 0; {loops}sum += {value}; sum /= {count}; "
            f"{loops}squares += ({value} - sum) * ({value} - sum); "
            f"{self.at(out)}[0] = (float)std::sqrt(squares / {count}); }}"
        )

    # ---- products, optimisers --------------------------------------------------------------------------------------

    def _mm(self, node: Node) -> None:
        self._product(node, None, *node.args)

    def _addmm(self, node: Node) -> None:
        if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
            raise Unsupported("a product with factors")
        self._product(node, *node.args)

    def _product(self, node: Node, bias: Place | None, a: Place, b: Place) -> None:
        out = node.outs[0]
        (m, k), n = a.sizes, b.sizes[1]
        (am, ak), (bk, bn), (cm, cn) = (_known(self.strides(p), p.sizes) for p in (a, b, out))
        if a.dtype != torch.float32 or not (cn == 1 or n == 1 or cm == 1 or m == 1):
            raise Unsupported("a product of that form")
        shift, along = "nullptr", "0, 0"
        if bias is not None:
            wide = _broadcast(bias, out.sizes)
            own = self.strides(wide)
            if 0 not in own or max(own) > 1:
                raise Unsupported("a product plus a matrix")
            shift, along = self.at(bias), f"{own[0]}, {own[1]}"
        mask, relu = node.kwargs.get("mask"), int(node.kwargs.get("relu", False))
        if mask is not None and self.strides(mask) != self.strides(out):
            raise Unsupported("a mask of that form")
        masked = self.at(mask) if mask is not None else "nullptr"
        self.result.scratch = max(self.result.scratch, 32 * max(k, 1))
        left, right = f"{self.at(a)}, {am}, {ak}", f"{self.at(b)}, {bk}, {bn}"
        self.lines.append(
            f"product({{{m}, {n}, {k}, {left}, {right}, {self.at(out)}, {cm}, {cn}, {shift}, {along}, {relu}, "
            f"{masked}, scratch}});"
        )

    def _fused_adam(self, node: Node) -> None:
        parameters, gradients, means, squares, most, steps = node.args[:6]
        kwargs = node.kwargs
        if most or kwargs["amsgrad"] or kwargs["maximize"]:
            raise Unsupported("this form of Adam")
        rate = f"rates[{len(self.result.adams)}]"
        self.result.adams.append(node)
        numbers = ", ".join(f"{float(kwargs[name])!r}" for name in ("beta1", "beta2", "weight_decay", "eps"))
        for group in zip(parameters, gradients, means, squares, steps, strict=True):
            p, g, m, v, step = group
            if any(x.sizes != p.sizes or x.store in self.result.turned or not _dense(x) for x in group[:4]):
                raise Unsupported("gradients that lie otherwise than their parameters")
            four = ", ".join(self.at(x) for x in (p, g, m, v))
            self.lines.append(f"adam({four}, {math.prod(p.sizes)}, {self.at(step)}, {rate}, {numbers});")

    def _foreach_add(self, node: Node) -> None:
        if _short(node) != "_foreach_add_.Scalar":
            raise Unsupported(f"the operation {_short(node)}")
        for place in node.args[0]:
            self._elementwise("{0} + {1}", place, [place, node.args[1]], {})

    def _foreach_lerp(self, node: Node) -> None:
        targets, online, share = node.args
        for x, y in zip(targets, online, strict=True):
            if not isinstance(share, float) or x.sizes != y.sizes or not (_dense(x) and _dense(y)):
                raise Unsupported("a foreach lerp of that form")
            self.lines.append(f"lerp({self.at(x)}, {self.at(y)}, {math.prod(x.sizes)}, {share!r}f);")


# ---- places ----------------------------------------------------------------------------------------------------------


def _mapped(place: Place, turned: bool) -> tuple[int, tuple[int, ...]]:
    """Offset and strides, where ``turned`` in a store that is laid out column by column."""
    if not turned:
        return place.offset, place.strides
    height, width = place.store.shape
    strides = tuple(s // width if s % width == 0 else s * height for s in place.strides)
    return place.offset % width * height + place.offset // width, strides


def _turnable(place: Place) -> bool:
    """Whether each of its dimensions runs along one of the store's two."""
    width = place.store.shape[1]
    across = sum((n - 1) * s for n, s in zip(place.sizes, place.strides, strict=True) if s % width)
    return place.offset % width + across < width


def _turned(nodes: Sequence[Node]) -> set[Store]:
    """Matrices of a row a sample; not gradients of weights, nor what the host or a generator reads or writes."""
    found: dict[Store, bool] = {}
    for node in nodes:
        short = "host" if node.host or node.draws else _short(node)
        everything = [*node.read, *node.written, *node.outs]
        for place in everything:
            store = place.store
            matrix = store.plain and len(store.shape) == 2 and 1 not in store.shape and place.dtype == torch.float32
            if store.external or short == "host" or not matrix or not _turnable(place):
                found[store] = False
        for place in node.written:
            store = place.store
            if store in found:
                continue
            if short == "mm.default":
                found[store] = node.args[1].store.external  # by weights
            else:
                alike = [p for p in node.read if p.store in found and not p.store.external and p.sizes == place.sizes]
                found[store] = all(found[p.store] for p in alike)
    for node in nodes:  # the optimisers' rows
        if not node.host and _short(node).startswith("_fused_adam"):
            for place in places(node.args):
                found[place.store] = False
    return {store for store, turn in found.items() if turn}


def _broadcast(place: Place, sizes: Sequence[int]) -> Place:
    """``place`` as if of ``sizes``, by PyTorch's rules."""
    missing = len(sizes) - len(place.sizes)
    strides = [0] * missing + [0 if n == 1 else s for n, s in zip(place.sizes, place.strides, strict=True)]
    return Place(place.store, place.offset, tuple(sizes), tuple(strides), place.dtype)


def _known(strides: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    """Strides of a matrix, 1 along a dimension of 1, which may be any."""
    return tuple(1 if n == 1 else s for s, n in zip(strides, sizes, strict=True))  # type: ignore[return-value]


def _dense(place: Place) -> bool:
    """Whether it is all of its store, row by row."""
    strides, step = [], 1
    for n in reversed(place.sizes):
        strides.append(step)
        step *= n
    ordered = all(n == 1 or s == t for n, s, t in zip(place.sizes, place.strides, reversed(strides), strict=True))
    return ordered and place.offset == 0 and step * place.dtype.itemsize == place.store.size


def _merged(dims: Sequence[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Neighbouring dimensions, the outer first, as one where the outer goes on where the inner ends."""
    found: list[tuple[int, tuple[int, ...]]] = []
    for n, strides in dims:
        if n == 1:
            continue
        if found and all(a == b * n for a, b in zip(found[-1][1], strides, strict=True)):
            found[-1] = (found[-1][0] * n, strides)
        else:
            found.append((n, strides))
    return found


def _shifted(element: str, by: str) -> str:
    """``address[index]`` with ``by`` added to the index, the last bracket of it."""
    address, _, index = element.rpartition("[")
    return f"{address}[{by} + {index}"
