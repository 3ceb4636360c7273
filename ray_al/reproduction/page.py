"""The page of reported against reproduced numbers, in Markdown. Equal results give equal text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ray_al.reproduction.claims import Paper
from ray_al.reproduction.records import Records
from ray_al.reproduction.verdicts import FAILS, HOLDS, NOT_RUN, Judged, Line, counts

HEAD = """# Reproduction

Reported against reproduced, written by `ray-al reproduce --out docs/reproduction.md` from the results of the papers'
[sweeps](papers.md); not edited by hand. `ray-al reproduce --check` says whether the page is what the results give.

- **ours**: the mean over seeds or draws ± their standard deviation. **deviation**: ours - reported; se: standard errors
  of that difference, from the spread of our runs and, where the paper gives it, of the paper's. With one run, ours is
  taken to vary as the paper's.
- A claim **holds** if the rule beside it is met, and **fails** if not. "Not run" names the command that runs it.
- **reduced**: fewer epochs, seeds, draws or images than the paper has, or a narrower network; **changed**: settings
  other than the paper's. What differs is in bold, and read from the sweep as it was run.
- Differences pair by seed.
"""
_COLUMNS = ("claim", "reported", "ours", "deviation", "rule", "verdict", "runs and settings")
_START = re.compile(r"^<!-- paper: (\w+) -->$", re.MULTILINE)


def write_page(parts: Mapping[str, str], order: Sequence[str], old: str = "") -> str:
    """The page with these parts, and those of other papers as `old`, an earlier page, has them."""
    kept = {**split_page(old), **parts}
    return HEAD + "".join(kept[key] for key in order if key in kept)


def split_page(text: str) -> dict[str, str]:
    """The parts of a page by paper."""
    starts = [*_START.finditer(text)]
    ends = [*(match.start() for match in starts), len(text)][1:]
    return {match[1]: f"\n{text[match.start() : end].rstrip()}\n" for match, end in zip(starts, ends, strict=True)}


def paper_part(paper: Paper, judged: Sequence[Judged], records: Records) -> str:
    """A paper's part of the page."""
    total = counts(line for one in judged for line in one.lines)
    tally = f"{total[HOLDS]} hold, {total[FAILS]} fail, {total[NOT_RUN]} not run"
    text = f"\n<!-- paper: {paper.key} -->\n## {paper.title}\n\n{paper.reference}. {paper.text}\n\n"
    text += f"**{sum(total.values())} claims: {tally}.**\n"
    return text + "".join(_section(paper, one, records) for one in judged)


def _section(paper: Paper, judged: Judged, records: Records) -> str:
    text = f"\n### {judged.section.title}\n\n" + _sources(judged, records)
    lines = [line for line in judged.lines if line.ours or not judged.section.folded]
    if lines:
        rows = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
        rows += ["| " + " | ".join(_cell(word) for word in _row(paper, line)) + " |" for line in lines]
        text += "\n".join(rows) + "\n\n"
    if folded := [line for line in judged.lines if line not in lines]:
        commands = Counter(line.command for line in folded)
        for command, number in commands.items():
            text += f"{number} of {len(judged.lines)} numbers {NOT_RUN}: `{command}`\n\n"
    return text.rstrip() + "\n"


def _sources(judged: Judged, records: Records) -> str:
    """Which runs the section rests on."""
    sweeps = dict.fromkeys(arm.sweep for line in judged.lines for arm in line.claim.measure.arms if line.ours)
    found = [f"`{run.name}` ({run.summary()})" for sweep in sweeps for run in records.runs(sweep)]
    return f"Runs: {'; '.join(found)}.\n\n" if found else ""


def _row(paper: Paper, line: Line) -> list[str]:
    claim, unit = line.claim, line.claim.unit
    told = claim.reported
    reported = told.said or unit.short(told.value) + (f" ± {unit.short(told.std)}" if not math.isnan(told.std) else "")
    head = [f"{claim.text} ({claim.source})", reported]
    rule = claim.rule.text(unit)
    if line.ours is None:
        lacks = f", {line.lacks} missing" if line.lacks else ""
        return [*head, "", "", rule, f"{NOT_RUN}{lacks}", f"`{line.command}`"]
    ours = line.ours
    value = unit.show(ours.value) + (f" ± {unit.show(ours.std)}" if not math.isnan(ours.std) else "")
    value += f" ({ours.note})" if ours.note else ""
    verdict = ", ".join((f"**{line.verdict}**", *line.reduced))
    return [*head, value, _deviation(line), rule, verdict, _runs(paper, line)]


def _deviation(line: Line) -> str:
    """Ours - reported; where no number is reported, how far from zero ours is, if that is the bound."""
    if not math.isfinite(line.deviation):
        ours, bound = line.ours, getattr(line.claim.rule, "bound", None)
        return f"{ours.value / ours.error:+.1f} se from 0" if ours and bound == 0 and ours.error > 0 else ""
    errors = f" ({line.errors:+.1f} se)" if math.isfinite(line.errors) else ""
    return line.claim.unit.signed(line.deviation) + errors


def _runs(paper: Paper, line: Line) -> str:
    assert line.ours
    ours, parts = line.ours, []
    if ours.runs:
        wanted = paper.runs if line.claim.runs is None else line.claim.runs
        few = ours.runs < wanted
        count = f"**{ours.runs:,} of {wanted:,} {paper.run_word}**" if few else f"{ours.runs:,} {paper.run_word}"
        parts.append(count + (f" x {ours.repeats} {paper.repeat_word}" if ours.repeats > 1 else ""))
    elif ours.repeats > 1:
        parts.append(f"{ours.repeats} {paper.repeat_word}")
    if ours.labels:
        parts.append(f"at {ours.labels}" + ("" if ours.labels.endswith("budgets") else " labels"))
    return "; ".join([*parts, *([line.settings] if line.settings else [])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
