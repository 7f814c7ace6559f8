"""What an HDF5 file may not do to its reader: lead it to other files, or claim more than its bytes can hold.

HDF5 follows links into other files, reads values from any file that the header names, and loads filters from
shared libraries. None of it belongs in a data set, so it is refused before anything is followed.
"""

from __future__ import annotations

import os
from typing import Any

from sparsejax.checkpoint.npz_file import MAX_EXPANSION
from sparsejax.models.force_field.dataset_errors import Problem

_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters that h5py brings along; each other one would be a shared library."""

_ALWAYS_ALLOWED = 64 << 20
"""Bytes of an array that may be there without being stored: arrays of one value often are."""


def link_problem(group: Any, place: str) -> Problem | None:
    """Why a path is not followed.

    Args:
      group: open file or group.
      place: path below it; it may be missing.

    Returns:
      the first part of the path that is a soft or external link; None if there is none.
    """
    import h5py

    parts = place.split("/")
    for depth, name in enumerate(parts):
        # Looks at the link alone: asking the group whether it has the name would follow it.
        key = name.encode("utf-8", "surrogateescape")
        if not isinstance(group, h5py.Group) or not group.id.links.exists(key):
            return None
        if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            text = "is a link to another place; copy what it leads to into the file itself"
            return Problem("/".join(parts[: depth + 1]), text)
        group = group[name] if depth + 1 < len(parts) else group
    return None


def storage_problem(array: Any) -> str | None:
    """Why an array is not read.

    Args:
      array: open HDF5 data set.

    Returns:
      what is wrong: its values lie in other files, need a filter that h5py does not bring along, or would
      fill far more memory than the file has bytes; None if nothing is.
    """
    if array.is_virtual or array.external:
        return "keeps its values in other files; copy them into the file itself"
    settings = array.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if set(filters) - set(_FILTERS) or len(set(filters)) < len(filters):
        known = ", ".join(_FILTERS.values())
        return f"needs the HDF5 filters {filters}; write it with {known}, each once"
    stored = min(array.id.get_storage_size(), os.stat(array.file.filename).st_size)
    if array.nbytes > max(_ALWAYS_ALLOWED, MAX_EXPANSION * stored):
        return (
            f"claims {array.nbytes} bytes and has {stored}: a forged size, or an array that was never filled"
        )
    return None
