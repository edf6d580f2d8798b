"""``rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2|FOLDER/``: a policy for other programs, or a folder for a model hub.

Beside a file lies its model card, named after it: ``policy.onnx.md``.
"""

from __future__ import annotations

from pathlib import Path

from rlkit.cli.parser import Parser, told
from rlkit.errors import UserError, refusing


def parser() -> Parser:
    found = Parser(prog="rlkit export", description="Write a policy and its card for other programs, or for a hub.")
    found.usage = "rlkit export RUN|ARTEFACT FILE.onnx|FILE.pt2|FOLDER/ [overwrite=true]"
    found.add_argument("source", metavar="RUN|ARTEFACT", help="a run's folder, or a .rlk file")
    text = ".onnx, .pt2 of PyTorch's exported programs, or a folder: policy, settings, result and card for a model hub"
    found.add_argument("file", metavar="FILE|FOLDER/", help=text)
    found.add_argument("settings", nargs="*", metavar="overwrite=true", help="replace what was exported there")
    return found


def main(argv: list[str]) -> int:
    """Export; returns 0.  Raises :class:`UserError` for bad input and for files that exist."""
    args = parser().read(argv)
    names, settings = told([args.source, args.file, *args.settings], ("overwrite",))
    if len(names) != 2 or settings.get("overwrite", "true") not in ("true", "false"):
        parser().error("expected a run or artefact, a file or folder, and nothing but overwrite=true beside them")
    from rlkit.algorithms.export import PROBES, SUFFIXES, export
    from rlkit.api import load
    from rlkit.run.card import file_card
    from rlkit.run.folder import read_result
    from rlkit.run.hub import write_folder
    from rlkit.run.reading import newest_artefact, under_way
    from rlkit.system.files import write_atomically

    source, file = Path(names[0]), Path(names[1])
    overwrite = settings.get("overwrite") == "true"
    if names[1].endswith(("/", "\\")) or file.is_dir() or not file.suffix:
        written = write_folder(source, file, overwrite)
        print(f"{file}: {', '.join(written)}")
        print("they are as the run wrote them: where its data lay, for one, is read by whoever gets them")
        return 0
    if file.suffix not in SUFFIXES:
        expected = f"{', '.join(SUFFIXES)} or a folder's name with / behind it"
        raise UserError(f"{file} is of no kind that is written, expected {expected}")
    beside = file.with_name(f"{file.name}.md")
    if beside.exists() and not overwrite:
        raise UserError(f"{beside} exists already, expected another name, or overwrite=true")
    agent = load(newest_artefact(source))
    result = read_result(source) if (source / "result.json").is_file() else None
    error = export(agent, file, overwrite)
    with refusing(source, "what it says of its data or result is damaged"):
        text = file_card(agent, result, file, under_way(source, agent))
    write_atomically(beside, text.encode())
    off = f", to {error:.1g} of half an action's range" if hasattr(agent.action_space, "high") else ""
    print(f"{file}: acts as {agent.name} does{off} on {PROBES} observations")
    print(f"{beside}: its model card")
    return 0
