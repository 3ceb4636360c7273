"""Bulk work on shared spaces as plain classes: used directly in one process, hosted by actors in `ray_al.cluster`."""
