"""Listing sources as the command does, and what their readers give."""

import pytest

from ray_al.data.faults import DataError
from ray_al.data.items.sources import list_images, parse_source


def listed(*sources, **columns):
    return list_images([parse_source(source) for source in sources], **columns)


def faults(*sources, **columns):
    with pytest.raises(DataError) as caught:
        listed(*sources, **columns)
    return caught.value.faults


def contents(items):
    """What the readers give for each row, opened once per part as workers do."""
    readers = [part.open() for part in items.parts]
    return [readers[part].read(key.as_py()) for part, key in zip(items.part, items.keys, strict=True)]
