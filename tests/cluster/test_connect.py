"""What is checked before Ray is asked to join or start a cluster."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from ray_al.cluster.connect import connected
from ray_al.sweep_file import ConfigError


@pytest.fixture
def web_page() -> Iterator[str]:
    """Some other server, as the dashboard is."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def _fault(address: str | None) -> str:
    with pytest.raises(ConfigError) as error, connected(address, 1, False, Console()):
        pass
    (fault,) = error.value.faults
    return fault


def test_a_port_of_something_else_is_told_at_once(web_page: str) -> None:
    assert _fault(web_page).startswith(f"--address: what answers at '{web_page}' is no head node of Ray")


@pytest.mark.parametrize("value", ["abc", "-1", "nan", "inf"])
def test_settings_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RAY_AL_CALL_TIMEOUT", value)
    assert _fault(None) == f"RAY_AL_CALL_TIMEOUT is {value!r}; it must be a number, 0 or more"
