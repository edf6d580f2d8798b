"""``rlkit report RUN...``: one page on runs, as HTML that fetches nothing and as Markdown beside it."""

from __future__ import annotations

from pathlib import Path

from rlkit.cli.parser import Parser
from rlkit.errors import UserError


def parser() -> Parser:
    text = "One page on runs: which method is better, with intervals, curves, data and costs."
    found = Parser(prog="rlkit report", description=text)
    found.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folders of runs, finished or not; of studies; or one of such folders",
    )
    out = "the page (report.html); its text is written beside it as .md"
    found.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE.html", help=out)
    return found


def main(argv: list[str]) -> int:
    """Write both files; returns 0.  Raises :class:`UserError` for what is no run, before anything is written."""
    args = parser().parse_args(argv)
    text = args.out.with_suffix(".md")
    if args.out.suffix != ".html" or args.out.is_dir() or text.is_dir() or "\0" in str(args.out):
        raise UserError(f"--out {args.out} is no page, expected a file ending in .html")
    from rlkit.cli.document import as_html, as_markdown
    from rlkit.cli.findings import contents
    from rlkit.run.folder import runs_in
    from rlkit.run.reading import read_run
    from rlkit.system.files import write_atomically

    folders = runs_in(args.runs)
    studies = [folder for folder in folders if (folder / "study.json").is_file()]
    if studies and len(folders) > len(studies):
        raise UserError(f"{studies[0]} is a study of rlkit tune, expected studies alone, or runs")
    if studies:
        from rlkit.cli import study

        title, blocks = study.contents(studies)
    else:
        runs = [read_run(folder) for folder in folders]
        for run in runs:
            if run.finished and not run.result:
                raise UserError(f"{run.folder}: result.json cannot be read, expected what a finished run writes there")
        title, blocks = contents(runs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, as_html(title, blocks).encode())
    write_atomically(text, as_markdown(title, blocks).encode())
    print(f"wrote {args.out} and {text}")
    return 0
