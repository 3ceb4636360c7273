"""A cluster of several machines on one: each node has its own network, processes, host name and shared memory.

A node is a set of Linux namespaces: its own address on a private bridge, its own process table, /dev/shm and /tmp/ray.
Only the file system is common, as a shared folder is on a real cluster. Killing a node kills the first process of its
process namespace, with which the kernel ends every other one at once; cutting its link is what a broken switch does.
Needs root, iproute2 and util-linux; nothing outside of the namespaces is changed. When the process that made the
nodes ends, in any way, so do they.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

RAY = str(Path(sys.executable).parent / "ray")
HEAD = "head"
PORT = 6379
START_SECONDS = 120
# What a node does first: shared memory, /tmp/ray, names of hosts and a home folder of its own, so that what lies in the
# real ones is neither seen nor changed. The shell stays as the first process of the process namespace, where it takes
# in orphans, and keeps the node's program in the foreground: when that ends, so does the node.
BOOT = """
set -e
hostname {name}
mkdir -p {folder}/ray {folder}/home
mount -t tmpfs -o size={shm}m tmpfs /dev/shm
mount --bind {folder}/ray /tmp/ray
sed 's#^root:\\([^:]*:[^:]*:[^:]*:[^:]*\\):[^:]*:#root:\\1:{folder}/home:#' /etc/passwd > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
printf '127.0.0.1 localhost\\n{address} {name}\\n' > {folder}/hosts
mount --bind {folder}/hosts /etc/hosts
: > {folder}/resolv.conf
mount --bind {folder}/resolv.conf /etc/resolv.conf
export HOME={folder}/home
{program} &
wait $!
"""


def missing() -> str:
    """Why such a cluster cannot be started here; empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    tools = [tool for tool in ("ip", "unshare", "nsenter", "setpriv", "mount") if shutil.which(tool) is None]
    if tools:
        return f"not installed: {', '.join(tools)}"
    probe = f"ral-{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", probe)
        _ip("-n", probe, "link", "add", "b0", "type", "bridge")
        _run("ip", "netns", "exec", probe, "unshare", "--mount", "--pid", "--uts", "--fork", "--mount-proc", "true")
    except subprocess.CalledProcessError as error:
        return f"namespaces are not allowed here: {error.stderr.strip() or error}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return ""


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _ip(*words: str) -> None:
    _run("ip", *words)


@dataclass
class Node:
    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path
    folder: Path  # holds home/ and ray/ of the node

    @property
    def init(self) -> int | None:
        """The first process of the node's process namespace, as the kernel outside of it counts; None before it is."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return int(children.read_text().split()[0]) if children.read_text().split() else None
        return None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass
class NamespaceCluster:
    """`workers` nodes and a head, each with `cpus` CPUs, joined by a token. Use as a context."""

    workers: int = 2
    cpus: int = 1
    ray: bool = True  # Ray runs on the nodes; else what `program` gives
    sign: str = "Ray runtime started"  # in the log of a node that is ready
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    nodes: dict[str, Node] = field(default_factory=dict)

    def __enter__(self) -> NamespaceCluster:
        self._id = secrets.token_hex(2)
        self._hub = f"ral-{self._id}"
        self._net = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
        # Ray's sockets lie below, and their paths may have 107 bytes at most.
        self._scratch = Path(tempfile.mkdtemp(prefix="ral-", dir="/tmp"))
        self._stack = contextlib.ExitStack()
        try:
            self._stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            self._add_namespace(self._hub)
            _ip("-n", self._hub, "link", "add", "br0", "type", "bridge")
            _ip("-n", self._hub, "link", "set", "br0", "up")
            Path("/tmp/ray").mkdir(exist_ok=True)  # a place to mount on
            for name in (HEAD, *(f"node{number + 1}" for number in range(self.workers))):
                self.start(name)
            if self.ray:
                self.wait(self.workers + 1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.nodes):
            self.kill(name)
        self._stack.close()

    # Nodes

    def start(self, name: str) -> None:
        """Add a node, or start one again that was killed."""
        number = 1 if name == HEAD else 1 + int(name.removeprefix("node"))
        address, space = f"{self._net}.{number}", self._space(name)
        if name not in self.nodes:
            self._add_namespace(space)
            _ip("-n", self._hub, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", self._hub, "link", "set", f"v{number}", "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
        folder = self._scratch / f"{name}-{secrets.token_hex(2)}"
        folder.mkdir()
        boot = BOOT.format(
            name=name, address=address, shm=512, folder=folder, program=self.program(name, address, folder)
        )
        apart = ["unshare", "--mount", "--pid", "--uts", "--fork", "--mount-proc", "--kill-child"]
        log = self._scratch / f"{folder.name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", space, *apart, "bash", "-c", boot],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=self.environment(),
            )  # fmt: skip
        self.nodes[name] = Node(name, address, process, log, folder)
        if name == HEAD or not self.ray:  # others of Ray's are waited for together
            self._wait_for(name)

    def program(self, name: str, address: str, folder: Path) -> str:
        """The command line that a node runs as long as it lives."""
        where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        join = [f"--address={self._net}.1:{PORT}"]
        ray = [RAY, "start", "--block", *(where if name == HEAD else join), f"--node-ip-address={address}"]
        ray += [f"--num-cpus={self.cpus}", "--object-store-memory=200000000", "--disable-usage-stats"]
        return " ".join(ray)

    def kill(self, name: str) -> None:
        """End all processes of a node at once, without a word to anybody."""
        node = self.nodes[name]
        if (init := node.init) is not None and node.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(timeout=10)
        node.process.kill()
        node.process.wait()

    def link(self, name: str, up: bool) -> None:
        """Cut a node off the network, or let it back."""
        number = self.nodes[name].address.rpartition(".")[2]
        _ip("-n", self._hub, "link", "set", f"v{number}", "up" if up else "down")

    def processes(self, name: str, title: str) -> list[int]:
        """Process ids, as seen here, of a node's processes whose command line holds `title`."""
        if (init := self.nodes[name].init) is None:
            return []
        space, found = os.readlink(f"/proc/{init}/ns/pid"), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == space:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if title in line:
                        found.append(int(entry.name))
        return found

    # Commands

    def environment(self) -> dict[str, str]:
        """A light environment with the cluster's token; nothing of another Ray around."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_ADDRESS", "RAY_AUTH"))}
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0"}

    def inside(self, name: str, *command: str) -> list[str]:
        """The command line that runs `command` on a node."""
        return ["nsenter", "-t", str(self.nodes[name].init), "-m", "-u", "-n", "-p", "--", *command]

    def popen(self, command: Sequence[str], out: Path, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command on the head node."""
        home = f"HOME={self.nodes[HEAD].folder}/home"
        inside = self.inside(HEAD, "env", f"--chdir={cwd}", home, *command)
        with open(out, "wb") as log:
            return subprocess.Popen(
                inside, stdout=log, stderr=subprocess.STDOUT, env={**self.environment(), **environment}
            )

    def wait(self, alive: int, seconds: float = START_SECONDS) -> None:
        """Until the head counts `alive` live nodes."""
        code = "import ray; ray.init('auto', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        deadline = time.monotonic() + seconds
        answer = subprocess.CompletedProcess[str]([], 0, "", "")
        while time.monotonic() < deadline:
            command = self.inside(HEAD, sys.executable, "-c", code)
            answer = subprocess.run(
                command, env=self.environment(), capture_output=True, text=True, timeout=60, check=False
            )
            if answer.stdout.strip() == str(alive):
                return
            time.sleep(0.5)
        logs = "\n".join(f"--- {n.name}: {n.log.read_text()[-2000:]}" for n in self.nodes.values())
        raise RuntimeError(f"{alive} nodes were not there in {seconds:.0f} s: {answer.stdout}{answer.stderr}\n{logs}")

    def _wait_for(self, name: str) -> None:
        node, deadline = self.nodes[name], time.monotonic() + START_SECONDS
        while self.sign not in node.log.read_text(errors="replace"):
            if not node.alive or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{node.log.read_text()[-3000:]}")
            time.sleep(0.1)

    def _space(self, name: str) -> str:
        return f"ral-{self._id}-{name}"

    def _add_namespace(self, space: str) -> None:
        _ip("netns", "add", space)
        self._stack.callback(subprocess.run, ["ip", "netns", "del", space], capture_output=True, check=False)
        _ip("-n", space, "link", "set", "lo", "up")
