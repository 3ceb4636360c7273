"""Whether a head takes this process's token, and whether Ray is told to give it: against a server that answers so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ray_al.cluster.head import MODE, head_fault, take_token

grpc = pytest.importorskip("grpc")
RIGHT = "a" * 64


@contextmanager
def head(asks: bool) -> Iterator[str]:
    """Its address. One that asks takes the token RIGHT alone."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if asks and ("authorization", f"Bearer {RIGHT}") not in [tuple(one) for one in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    handlers = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_USE_TLS"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nowhere")


@pytest.mark.parametrize("auto", [False, True])
def test_token_mode_is_turned_on_where_the_cluster_asks_for_one(auto: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
    with head(asks=True) as address:
        if auto:
            monkeypatch.setenv("RAY_ADDRESS", address)
        take_token("auto" if auto else address)
        assert os.environ[MODE] == "token"
        assert head_fault(address) == ""


@pytest.mark.parametrize("own", [RIGHT, ""])
def test_an_open_cluster_is_joined_without(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", own)
    with head(asks=False) as address:
        take_token(address)
        assert MODE not in os.environ
        assert head_fault(address) == ""


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
    monkeypatch.setenv(MODE, "disabled")
    with head(asks=True) as address:
        take_token(address)
        assert os.environ[MODE] == "disabled"
        assert head_fault(address).startswith("no token was given to the Ray cluster")


@pytest.mark.parametrize("address", [None, "", "auto", "nonsense", "127.0.0.1:1", "http://127.0.0.1:8265"])
def test_where_nothing_asks_nothing_is_set(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
    take_token(address)
    assert MODE not in os.environ


def test_a_wrong_token_and_none_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with head(asks=True) as address:
        assert head_fault(address).startswith("no token was given to the Ray cluster")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
        assert head_fault(address).startswith("the token of RAY_AUTH_TOKEN is not that of the Ray cluster")
