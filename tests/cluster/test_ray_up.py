"""`ray up docs/cluster/local.yaml` for real: machines with nothing but an ssh server, brought up from another one."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_al import load_results
from tests.cluster.namespaces import HEAD, NamespaceCluster, missing

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin") or ""
LAPTOP = "node2"  # the machine that the user sits at; the cluster is the head and node1


def _reason() -> str:
    tools = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    if not SSHD or tools:
        return f"not installed: {', '.join([*tools, *([] if SSHD else ['sshd'])])}"
    return missing()


REASON = _reason()
SETTINGS = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
"""


@dataclass
class SshMachines(NamespaceCluster):
    """Machines that run an ssh server and nothing else; the key lies in `folder`."""

    folder: Path = Path()
    ray: bool = False
    sign: str = "Server listening"

    def program(self, name: str, address: str, folder: Path) -> str:
        (folder / "home").mkdir()
        (folder / "home" / "venv").symlink_to(BIN.parent)  # installing it takes minutes and a network
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key")], check=True)
        settings = SETTINGS.format(address=address, folder=folder, key=self.folder / "key")
        (folder / "sshd_config").write_text(settings)
        serve = f"mkdir /run/sshd && exec {SSHD} -D -e -f {folder}/sshd_config"
        return f"bash -c 'mount -t tmpfs tmpfs /run && {serve}'"

    def at_laptop(self, *command: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        home = f"HOME={self.nodes[LAPTOP].folder}/home"
        words = self.inside(LAPTOP, "env", f"--chdir={ROOT}", home, *command)
        return subprocess.run(words, env=self.plain(), capture_output=True, text=True, timeout=timeout, check=False)

    def plain(self) -> dict[str, str]:
        """An environment without a token: the files that `ray up` brings must do."""
        dropped = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PYTHONPATH")
        kept = {key: value for key, value in self.environment().items() if key not in dropped}
        return {**kept, "RAY_UP_enable_autoscaler_v2": "0"}  # as docs/cluster/local.yaml says


def _cluster_file(machines: SshMachines, folder: Path) -> Path:
    """docs/cluster/local.yaml with the lines edited that it says to edit, and nothing installed."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "cluster" / "local.yaml").read_text())
    config["cluster_name"] = f"ral-{secrets.token_hex(3)}"
    addresses = {name: node.address for name, node in machines.nodes.items()}
    config["provider"] |= {"head_ip": addresses[HEAD], "worker_ips": [addresses["node1"]]}
    config["auth"] |= {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    config["setup_commands"] = [line for line in config["setup_commands"] if "pip install" not in line]
    path = folder / "local.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.skipif(bool(REASON), reason=REASON or "-")
def test_a_cluster_from_nothing_to_a_report(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    with SshMachines(workers=2, folder=tmp_path) as machines:
        ray = str(BIN / "ray")
        file = str(_cluster_file(machines, tmp_path))
        assert machines.at_laptop(ray, "get-auth-token", "--generate").returncode == 0
        up = machines.at_laptop(ray, "up", "--yes", "--no-config-cache", file)
        assert up.returncode == 0, up.stdout + up.stderr
        _wait_for_worker(machines, ray, file)
        run = f"cd ~/ray-al && ray-al run sweeps/quickstart.yaml --smoke --address auto --set storage={tmp_path}/runs"
        done = machines.at_laptop(ray, "exec", file, run)
        assert "9 of 9 trajectories done" in done.stdout, done.stdout + done.stderr
        job = _submit_through_the_dashboard(machines, ray, file, f"{tmp_path}/jobs")
        assert "9 of 9 trajectories done" in job, job
        down = machines.at_laptop(ray, "down", "--yes", file)
        assert down.returncode == 0, down.stdout + down.stderr
        assert not machines.processes(HEAD, "gcs_server")
    for folder in ("runs", "jobs"):
        frame = load_results(tmp_path / folder / "quickstart-smoke")
        assert (frame.status == "ok").all()
        assert (tmp_path / folder / "quickstart-smoke" / "report.html").exists()


def _wait_for_worker(machines: SshMachines, ray: str, file: str) -> None:
    """The head starts its workers by itself, over ssh."""
    code = "import ray; ray.init('auto', log_to_driver=False); print('alive', sum(n['Alive'] for n in ray.nodes()))"
    seen = ""
    for _ in range(20):
        answer = machines.at_laptop(ray, "exec", file, f'python -c "{code}"')
        seen = answer.stdout + answer.stderr
        if "alive 2" in seen:
            return
        time.sleep(2)
    logs = (machines.nodes[HEAD].folder / "ray").glob("session_2*/logs/monitor.log")
    raise AssertionError(f"no worker: {seen}\n" + "\n".join(log.read_text()[-4000:] for log in logs))


def _submit_through_the_dashboard(machines: SshMachines, ray: str, file: str, storage: str) -> str:
    """`ray dashboard` brings the head's loopback here; `ray job submit` runs the sweep through it."""
    home = f"HOME={machines.nodes[LAPTOP].folder}/home"
    with subprocess.Popen(
        machines.inside(LAPTOP, "env", f"--chdir={ROOT}", home, ray, "dashboard", file),
        env=machines.plain(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as tunnel:  # fmt: skip
        try:
            words = "sweeps/quickstart.yaml --smoke --address auto --set storage="
            run = f"cd ~/ray-al && ~/venv/bin/ray-al run {words}{storage}"
            submit = ["env", "RAY_AUTH_MODE=token", ray, "job", "submit", "--address", "http://localhost:8265", "--"]
            for _ in range(10):
                answer = machines.at_laptop(*submit, "bash", "-c", run)
                if answer.returncode == 0:
                    break
                time.sleep(2)
            return answer.stdout + answer.stderr
        finally:
            for pid in machines.processes(LAPTOP, "8265:"):
                subprocess.run(["kill", str(pid)], check=False)
            tunnel.terminate()
