"""``rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2 [overwrite=true]``: the policy as a file that other programs run.

A model card, ``FILE.md``, is written beside it.
"""

from __future__ import annotations

from pathlib import Path

from rlkit.errors import UserError, refusing

USAGE = "usage: rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2 [overwrite=true]"


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    words = [word for word in argv if not word.startswith("overwrite=")]
    asked = [word.partition("=")[2] for word in argv if word.startswith("overwrite=")]
    if len(words) != 2 or not set(asked) <= {"true", "false"}:
        raise UserError(USAGE)
    from rlkit.algorithms.export import PROBES, card, export
    from rlkit.api import load
    from rlkit.run.folder import read_result
    from rlkit.system.files import write_atomically

    source, file = Path(words[0]), Path(words[1])
    overwrite = "true" in asked
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
