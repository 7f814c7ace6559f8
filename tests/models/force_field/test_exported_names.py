"""The family's public names are functions and classes, also after the modules that they are in are loaded."""

from __future__ import annotations

import inspect

from sparsejax.models import force_field


def test_every_public_name_is_there_whatever_is_loaded():
    for _ in range(2):
        for name in force_field.__all__:
            found = getattr(force_field, name)
            assert inspect.isfunction(found) or inspect.isclass(found), name
    assert dir(force_field) == sorted(force_field.__all__)
