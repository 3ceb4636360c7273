"""Whether what answers is a cluster that takes this process's token: Ray itself goes on trying for long, or ever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SECONDS = 5.0
MODE = "RAY_AUTH_MODE"
HOW = f"set {MODE}=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as on the cluster's nodes"


def token() -> tuple[str, str]:
    """(token, where it is from), by Ray's order: variable, file that a variable names, file at home; ("", "") if none.

    With RAY_AUTH_MODE=disabled there is none.
    """
    if os.environ.get(MODE, "token").lower() != "token":
        return "", ""
    if text := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return text, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip(), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def take_token(address: str | None) -> None:
    """Turn token authentication on where the cluster at `address` asks for it and this process has a token.

    Ray does so by itself for a local cluster alone (address auto). It reads its mode when it is imported: this comes
    before.
    """
    address = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    if address and MODE not in os.environ and token()[0] and _unauthenticated(_refusal(address, "")):
        os.environ[MODE] = "token"


def head_fault(address: str) -> str:
    """Why this process cannot join what answers at host:port; empty if it can, or if that cannot be told."""
    given, source = token()
    refusal = _refusal(address, given)
    if _unauthenticated(refusal):
        what = f"the token of {source} is not that of" if given else "no token was given to"
        return f"{what} the Ray cluster at {address!r}, which asks for one; {HOW}"
    if refusal is not None and "HTTP/2" in (refusal.details() or ""):  # it speaks another protocol
        ports = "its port is 6379 by default, 8265 the dashboard's"
        return f"what answers at {address!r} is no head node of Ray; {ports}"
    return ""


def _unauthenticated(refusal: Any) -> bool:
    return refusal is not None and refusal.code().name == "UNAUTHENTICATED"


def _refusal(address: str, given: str) -> Any:
    """What a head at host:port answers, as grpc's error, to what Ray asks first, with a token or without (""); None if
    it has nothing against it, or that cannot be told."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError:
        return None
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return None  # Ray alone knows the certificates
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=SECONDS, metadata=[("authorization", f"Bearer {given}")] if given else None)
        except grpc.RpcError as error:
            return error
    return None
