"""`python -m ray_al`: the same as the command `ray-al`."""

from ray_al.cli import entry

entry()
