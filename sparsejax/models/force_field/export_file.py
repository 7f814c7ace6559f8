"""The file of an export: refused before the work where it cannot lie there, written in one step."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a file can lie there.

    Raises:
      ValueError: it is a directory, or its folder does not exist.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, never raises
        raise ValueError(f"{path} is a directory: name a file in it")
    if not os.path.isdir(path.parent):
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    return path


def write_bytes(content: bytes, path: Path) -> Path:
    """Write exactly this path; an old file stays until the new one is whole.

    Returns:
      the path.

    Raises:
      ValueError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as stream:  # with the permissions of any new file
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path
