"""``rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2 [overwrite=true]``: the policy as a file that other programs run.

A model card, ``FILE.md``, is written beside it.
"""

from __future__ import annotations

from pathlib import Path

from rlkit.cli.parser import Parser, told
from rlkit.errors import UserError, refusing


def parser() -> Parser:
    found = Parser(prog="rlkit export", description="Write a policy, and a model card, for other programs.")
    found.usage = "rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2 [overwrite=true]"
    found.add_argument("source", metavar="RUN|ARTEFACT", help="a run's folder, or a .rlk file")
    found.add_argument("file", metavar="FILE", help=".onnx, or .pt2 of PyTorch's exported programs")
    found.add_argument("settings", nargs="*", metavar="overwrite=true", help="replace FILE and its card")
    return found


def main(argv: list[str]) -> int:
    """Export; returns 0.  Raises :class:`UserError` for bad input and for files that exist."""
    args = parser().read(argv)
    names, settings = told([args.source, args.file, *args.settings], ("overwrite",))
    if len(names) != 2 or settings.get("overwrite", "true") not in ("true", "false"):
        parser().error("expected a run or artefact, a file, and nothing but overwrite=true beside them")
    from rlkit.algorithms.export import PROBES, card, export
    from rlkit.api import load
    from rlkit.run.folder import read_result
    from rlkit.system.files import write_atomically

    source, file = Path(names[0]), Path(names[1])
    overwrite = settings.get("overwrite") == "true"
    beside = file.with_suffix(".md")
    if beside.exists() and not overwrite:
        raise UserError(f"{beside} exists already, expected another name, or overwrite=true")
    agent = load(source)
    result = read_result(source) if (source / "result.json").is_file() else None
    with refusing(source, "what it says of its data or result is damaged"):
        text = card(agent, result, file)
    error = export(agent, file, overwrite)
    write_atomically(beside, text.encode())
    off = f", to {error:.1g} of half an action's range" if hasattr(agent.action_space, "high") else ""
    print(f"{file}: acts as {agent.name} does{off} on {PROBES} observations")
    print(f"{beside}: its model card")
    return 0
