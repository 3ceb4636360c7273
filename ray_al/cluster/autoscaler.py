"""What an autoscaler may still bring. Imports no Ray: Ray itself does not tell.

A cluster of `ray up` leaves its node types in a file on the head node, where the driver of a sweep runs. On Kubernetes
the operator has them, out of reach: there, what a trial asks for is believed to come.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ray_al.cluster.resources import Node
from ray_al.sweep_file import ResourcesSection

NODE_TYPES = "~/ray_bootstrap_config.yaml"
MOST = 1000  # machines of one type that are counted


def coming_nodes(resources: ResourcesSection) -> list[Node]:
    """CPUs and GPUs of every machine that the autoscaler of this node's cluster may start; [] without one."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return [{"CPU": float(resources.trial.cpus or 1.0), "GPU": float(resources.trial.gpus)}]
    try:
        config = yaml.safe_load(Path(NODE_TYPES).expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, UnicodeDecodeError, yaml.YAMLError):
        return []
    if not isinstance(config, dict) or not isinstance(config.get("available_node_types"), dict):
        return []
    most, nodes = _count(config.get("max_workers")), []
    for name, kind in config["available_node_types"].items():
        if name == config.get("head_node_type") or not isinstance(kind, dict):
            continue
        node = _resources(kind.get("resources"))
        if node["CPU"]:
            nodes += [node] * min(most, _count(kind.get("max_workers", most)))
    return nodes


def _resources(section: Any) -> Node:
    given = section if isinstance(section, dict) else {}
    return {kind: float(given[kind]) if isinstance(given.get(kind), int | float) else 0.0 for kind in ("CPU", "GPU")}


def _count(value: Any) -> int:
    return min(MOST, value) if isinstance(value, int) and value > 0 else 0
