"""The command `ray-al reproduce`: papers' claims against the results of their sweeps."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

console = Console()
PAGE = Path("docs/reproduction.md")


def reproduce(
    papers: Annotated[list[str] | None, typer.Argument(metavar="[PAPER]...", help="Default: all of them.")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI of the sweeps' results.")] = "runs",
    out: Annotated[
        Path | None, typer.Option(help="Write a page of it; parts of papers not named stay as they are.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"Write nothing; exit 1 if the page (--out, or {PAGE}) is another one.")
    ] = False,
) -> None:
    """Compare the results of papers' sweeps with what the papers report: how many claims hold."""
    from ray_al import __version__
    from ray_al.reproduction.page import paper_part, write_page
    from ray_al.reproduction.papers import PAPERS
    from ray_al.reproduction.records import Records, open_results
    from ray_al.reproduction.verdicts import counts, judge
    from ray_al.sweep_file import ConfigError

    chosen = papers or list(PAPERS)
    if unknown := [name for name in chosen if name not in PAPERS]:
        raise ConfigError([f"unknown paper {name!r}; known: {', '.join(PAPERS)}" for name in unknown])
    place, page_path = open_results(storage), out or PAGE
    old = _read_page(page_path) if out or check else ""  # before the work
    parts = {}
    for name in dict.fromkeys(chosen):
        with console.status(name) as status:  # shown in a terminal alone
            told = partial(_tell, status, name)
            records = Records(place, __version__, PAPERS[name].commands, told)
            judged = judge(PAPERS[name], records)
        parts[name] = paper_part(PAPERS[name], judged, records)
        total = counts(line for one in judged for line in one.lines)
        say(f"{name}: " + ", ".join(f"{number} {verdict}" for verdict, number in sorted(total.items())))
    if out is None and not check:
        say("--out PATH writes a page of every claim")
        return
    page = write_page(parts, list(PAPERS), old)
    if not check:
        try:
            page_path.parent.mkdir(parents=True, exist_ok=True)
            page_path.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigError([f"the page cannot be written: {page_path} ({error})"]) from None
        say(f"{page_path}")
    elif page != old:
        say(f"{page_path} is not what the results in {storage} give:" if old else f"{page_path} is not there")
        lines = difflib.unified_diff(old.splitlines(), page.splitlines(), "on disk", "from results", "", "", 0, "")
        for line in list(lines)[:20] if old else []:
            say(line[:200])
        raise typer.Exit(1)
    else:
        say(f"{page_path} is what the results give")


def _read_page(path: Path) -> str:
    """Empty if there is none. Raises ConfigError for what is no text file."""
    from ray_al.sweep_file import ConfigError

    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"the page cannot be read: {path} ({error})"]) from None


def _tell(status: Status, paper: str, doing: str) -> None:
    status.update(f"{paper}: {escape(doing)}")


def say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
