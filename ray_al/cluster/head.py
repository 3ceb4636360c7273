"""Whether what answers is a cluster that takes this process's token: Ray itself goes on trying for long, or ever."""

from __future__ import annotations

import os
from pathlib import Path

SECONDS = 5.0
HOW = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH as on the cluster's nodes"


def token() -> tuple[str, str]:
    """(token, where it is from), by Ray's order: variable, file that a variable names, file at home; ("", "") if none.

    With RAY_AUTH_MODE=disabled there is none.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return "", ""
    if text := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return text, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip(), str(path)
    except (OSError, UnicodeDecodeError):
        return "", ""


def head_fault(address: str) -> str:
    """Why this process cannot join what answers at host:port; empty if it can, or if that cannot be told."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError:
        return ""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return ""  # Ray alone knows the certificates
    given, source = token()
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")  # what Ray asks first, too
        try:
            ask(b"", timeout=SECONDS, metadata=[("authorization", f"Bearer {given}")] if given else None)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                what = f"the token of {source} is not that of" if given else "no token was given to"
                return f"{what} the Ray cluster at {address!r}, which asks for one; {HOW}"
            if "HTTP/2" in (error.details() or ""):  # it speaks another protocol
                ports = "its port is 6379 by default, 8265 the dashboard's"
                return f"what answers at {address!r} is no head node of Ray; {ports}"
    return ""
