"""A run's surroundings: the cluster it is connected to, what that has, the signals that end the run."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from rich.console import Console

from ray_al.cluster.feature_store import BYTES_VARIABLE, NAMESPACE
from ray_al.cluster.head import head_fault
from ray_al.cluster.local_ray import LocalRay
from ray_al.cluster.resources import this_machine
from ray_al.cluster.services import TIMEOUT_VARIABLE
from ray_al.sweep_file import ConfigError

# No files of Tune's own (each trial writes its ledger and events), no handler that swallows Ctrl-C, no change of a
# trial's folder (own data may be given by relative path).
TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # that a finished trial's thread may take to end before its process is kept
}
PASSED_ON = (TIMEOUT_VARIABLE, BYTES_VARIABLE)  # settings of a run: its processes on other machines have them, too


@contextlib.contextmanager
def connected(address: str | None, cpus: int | None, dashboard: bool, console: Console) -> Iterator[Callable[[], None]]:
    """Connect to a running cluster, or start one of this machine's cores: its dashboard listens on loopback, and its
    other ports take Ray's own token only. What is given leaves the cluster before the end."""
    passed_on = _settings()
    os.environ.update(TUNE_SETTINGS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}

    def told(text: str) -> None:
        console.print(f"Ray dashboard: {text}", highlight=False, markup=False)

    cluster = LocalRay(dashboard, told)
    leave = ray.shutdown if address else cluster.leave
    try:
        if address:
            _check_address(address)
            if passed_on:
                options["runtime_env"] = {"env_vars": passed_on}
            try:
                context = ray.init(address=address, **options)
            except Exception as error:  # a wrong token, another version, a dead head: Ray raises many types
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ConfigError([f"--address: cannot join the Ray cluster at {address!r}: {reason}"]) from error
            told(f"http://{context.dashboard_url}" if getattr(context, "dashboard_url", None) else "off")
        else:
            # A local runtime that was killed does not come back: end soon instead of waiting a minute for it.
            os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
            local = {"dashboard_host": "127.0.0.1", "_node_ip_address": "127.0.0.1"}
            cluster.start(num_cpus=int(this_machine(cpus)["CPU"]), **local, **options)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # its errors are told by the run itself
        yield leave
    finally:
        leave()


@contextlib.contextmanager
def meanwhile(leave: Callable[[], None]) -> Iterator[None]:
    """Leave the cluster beside what is done within: a local one takes a second to end."""
    # Ray ends the process, with code 1, if a thread uses it while another leaves. To collect what failed calls left in
    # cycles is such a use: it tells Ray of every reference that is let go of.
    gc.disable()
    thread = threading.Thread(target=leave)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        gc.enable()


def _settings() -> dict[str, str]:
    """Those of PASSED_ON that are set. Raises ConfigError for what is no positive number."""
    given = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    faults = []
    for name, text in given.items():
        with contextlib.suppress(ValueError):
            if 0 <= float(text) < math.inf:
                continue
        faults.append(f"{name} is {text!r}; it must be a number, 0 or more")
    if faults:
        raise ConfigError(faults)
    return given


def cluster_nodes() -> list[dict[str, float]]:
    """CPUs and GPUs of every machine of the cluster."""
    return list(machines().values())


def machines() -> dict[str, dict[str, float]]:
    """What every machine of the cluster has, by the id that Ray gave it."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _check_address(address: str) -> None:
    """Raise ConfigError unless a cluster answers there and takes the token: Ray would go on trying for long."""
    if "://" in address:
        raise ConfigError(
            [
                f"--address: {address!r} is not the address of a head node (host:port; auto on one of its nodes). "
                f"The driver of a sweep runs within the cluster: on its head, or by `ray job submit`; see docs/cluster"
            ]
        )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _local_address()
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError([f"--address: {address!r} is no address; give host:port of a head node, or auto"])
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError) as error:  # ValueError: no name of a host (UnicodeError)
        raise ConfigError([f"--address: no Ray cluster answers at {address!r} ({error})"]) from None
    if fault := head_fault(address):
        raise ConfigError([f"--address: {fault}"])


def _local_address() -> str:
    """Where `ray start` on this machine left the address of its cluster."""
    folder = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    try:
        return folder.read_text().strip()
    except OSError:
        raise ConfigError(["--address auto: no Ray cluster was started on this machine (ray start --head)"]) from None


class Stop:
    """Ctrl-C, and SIGTERM, a batch system's notice: KeyboardInterrupt at once, and again in every later `check`.

    Python loses an exception raised while a destructor or a weak reference's callback happens to run; and a process
    that a script started in the background ignores Ctrl-C, by which a lost lease also ends a run.
    """

    def __init__(self) -> None:
        self._asked = False

    def check(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
