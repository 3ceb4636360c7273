"""The report in a real browser: it runs without errors, asks for nothing, and no text is cut or covered."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from ray_al.results.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # the browser itself must not call home either
    *("--enable-logging=stderr", "--virtual-time-budget=4000", "--window-size=1300,900"),
)
# Runs inside the report: looks at every figure for cut and overlapping text, sorts a table, switches the metric.
PROBE = """
const found = {cut: [], overlap: [], wider: document.documentElement.scrollWidth - innerWidth};
for (const svg of document.querySelectorAll("svg.figure")) {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) continue;
  const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([text, a], i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
      found.cut.push(text);
    for (const [other, b] of boxes.slice(i + 1))
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3) found.overlap.push([text, other]);
  });
}
const table = document.querySelector("#areas table");
const column = () => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[2].innerText));
const header = table.querySelectorAll("th button")[2];
header.click(); found.ascending = column(); header.click(); found.descending = column();
const shown = name => getComputedStyle(document.querySelector(".m-" + name)).display !== "none";
found.before = [shown("accuracy"), shown("nll")];
document.querySelector("[for=show-nll]").click();
found.after = [shown("accuracy"), shown("nll")];
const arm = document.querySelector(".m-nll svg .arm");
arm.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
found.lit = document.querySelectorAll(".m-nll svg .arm.on").length;
found.asked = performance.getEntriesByType("resource").map(entry => entry.name);
found.text = document.body.innerText;
parent.postMessage(JSON.stringify(found), "*");
"""
OUTER = """<!doctype html><iframe src="report.html" width="375" height="700"></iframe>
<iframe src="report.html" width="1200" height="700"></iframe>
<script>onmessage = e => { document.body.append(Object.assign(document.createElement("pre"), {textContent: e.data})) }
</script>"""


def browse(folder: Path, page: str) -> tuple[list[dict], str]:
    """What the probe found at phone and at desk width, and the browser's log."""
    assert BROWSER
    (folder / "report.html").write_text(page.replace("</body>", f"<script>{PROBE}</script></body>"), "utf-8")
    (folder / "outer.html").write_text(OUTER, "utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "outer.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = [json.loads(html.unescape(text)) for text in re.findall(r"<pre>(.*?)</pre>", done.stdout, re.S)]
    return found, done.stderr


@pytest.fixture
def results(sweep, rows):
    strengths = {"random": 0.1} | {f"strategy_{i}_with_a_long_name" * (1 + i % 2): 0.1 + 0.03 * i for i in range(11)}
    long = "a dataset whose name is <long> & goes on " * 3
    failed = rows([0.5], error="OutOfMemoryError: <b>2 GiB</b>", dataset=long, seed=9)
    return pd.concat([sweep(strengths, datasets=("digits", long), full=0.97), failed])


def test_the_report_works_in_a_browser(results, tmp_path):
    found, log = browse(tmp_path, write_report(results, "demo " * 30, {"planned": 1_000_000}))
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert len(found) == 2  # the probe ran to its end at both widths
    for each in found:
        assert each["asked"] == []
        assert each["cut"] == []
        assert each["overlap"] == []
        assert each["wider"] <= 0  # the page itself never scrolls sideways
        assert each["ascending"] == sorted(each["ascending"])
        assert sorted(each["ascending"], reverse=True) == each["descending"]
        assert (each["before"], each["after"]) == ([True, False], [False, True])
        assert each["lit"] >= 3  # band, line and name of one strategy
        for part in ("Learning curves", "OutOfMemoryError: <b>2 GiB</b>", "1 failed", "strategy_0_with_a_long_name"):
            assert part in each["text"]
