"""The rules of an update, asked of a learner before its updates are run in another way than as they are written.

Nothing is read back; what is done depends on the count of updates alone and repeats after a period; what changes lies
in modules, optimisers, generators and tensors changed in place, never in an attribute that is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlkit.algorithms.engine.graph import Moment
from rlkit.algorithms.engine.program import Program

if TYPE_CHECKING:
    from rlkit.algorithms.learner import Learner

# What gives Python a value, or a shape that depends on values.
READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")
COUNTED = ("_n_updates", "num_timesteps", "steps_at_once")  # what the engines count
PERIODS = 4  # that are compared
NUMBERS = (int, float, str, type(None))


def line_of_text() -> str:
    """The innermost line being run that is neither PyTorch's nor of ``rlkit.algorithms``, nor of what checks types."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if not module.startswith(("torch.", "rlkit.algorithms.", "jaxtyping.", "beartype.")) and file[0] != "<":
            break
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class Trace(TorchDispatchMode):
    """The operators that ran, with the shapes they were given and the line of the text they are from."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, tuple[tuple[int, ...], ...]]] = []
        self.lines: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shapes = tuple(tuple(a.shape) for a in args if isinstance(a, Tensor))
        self.steps.append((func._schema.name.partition("::")[2], shapes))
        self.lines.append(line_of_text())
        return func(*args, **(kwargs or {}))


def broken(learner: Learner) -> str | None:
    """Which rule the updates of ``learner`` break and where, or None; it is left as it was."""
    program = Program(learner)
    traces, before = [Trace() for _ in range(PERIODS)], Moment(program)
    for _ in range(program.period):  # what the first one alone allocates is there
        program.once()
    held = _held(learner)
    for trace in traces:
        with trace:
            for _ in range(program.period):
                program.once()
    kept = _held(learner)
    before.restore()
    first = traces[0]
    for (name, _), line in zip(first.steps, first.lines, strict=True):
        if name in READS:
            return f"it reads a value back ({line})"
    for second in traces[1:]:
        for place, (one, other) in enumerate(zip(first.steps, second.steps, strict=False)):
            if one != other:
                return f"what it does depends on more than the count of updates ({second.lines[place]})"
        if len(first.steps) != len(second.steps):
            return f"what it does depends on more than the count of updates (a period is {program.period})"
    changed = sorted(name for name in held if name in kept and held[name] != kept[name])
    if changed:
        return f"attribute '{changed[0]}' is replaced by an update, expected it to be changed in place"
    return None


def _held(learner: Learner) -> dict[str, Any]:
    """Numbers, and which tensors there are, by attribute."""
    found = {name: value for name, value in vars(learner).items() if name not in COUNTED}
    plain = {name: value for name, value in found.items() if isinstance(value, NUMBERS)}
    return {**plain, **{name: id(value) for name, value in found.items() if isinstance(value, Tensor)}}
