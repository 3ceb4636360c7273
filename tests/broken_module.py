"""A module whose import fails, as a user's may."""

raise RuntimeError("no")
