"""Files that are there whole or not at all, and what the file system says when it refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ganrt.errors import GanrtError, StorageError, StorageFull, UsageError

PART = ".part"
CHUNK = 1 << 20
LINK = "changed: a link, no file"
_BINARY, _NO_LINK = getattr(os, "O_BINARY", 0), getattr(os, "O_NOFOLLOW", 0)


def digest(data: bytes | memoryview) -> str:
    """BLAKE2b of 128 bits, as 32 hex digits (``b2sum -l 128`` gives the same)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def file_digest(path: Path, start: int = 0, length: int | None = None) -> str:
    """The digest of a file, or of ``length`` bytes from ``start``. Raises OSError, also when it is shorter."""
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        file.seek(start)
        left = os.fstat(file.fileno()).st_size - start if length is None else length
        while left > 0:
            data = file.read(min(CHUNK, left))
            if not data:
                raise OSError(errno.ENODATA, "ends early", str(path))
            state.update(data)
            left -= len(data)
    return state.hexdigest()


class Held:
    """A folder held open: this very one, also when it has been moved and another has its name. To be closed.

    A file in it is ``base`` and its name, relative to ``descriptor``; that is None where a folder in use cannot be
    moved (Windows).
    """

    def __init__(self, folder: Path) -> None:
        can = {os.open, os.rename, os.unlink} <= os.supports_dir_fd
        self.descriptor = os.open(folder, os.O_RDONLY) if can else None
        self.base = "" if can else f"{os.fspath(folder)}/"

    def close(self) -> None:
        """Lets it go; a second time does nothing."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def no_link(path: Path) -> Path:
    """The path. Raises OSError where it is a link, lest what it leads to, outside of a dataset, be written over."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return path


def write_loose(path: str, data: bytes, folder: int | None = None) -> None:
    """Writes one of many small files: whole under its name, or not there. Not synced.

    ``path`` is relative to ``folder`` where a descriptor is given.
    """
    part = path + PART
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY | _NO_LINK, 0o666, dir_fd=folder)
    try:
        written = os.write(file, data)
        while written < len(data):
            written += os.write(file, data[written:])
    except BaseException:
        os.close(file)
        os.unlink(part, dir_fd=folder)
        raise
    try:
        os.close(file)
        os.replace(part, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(part, dir_fd=folder)
        raise


def write_synced(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes a file, given whole or in pieces, that survives a power cut whole, or is not there."""
    part = path.with_name(path.name + PART)
    try:
        with open(no_link(part), "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # Another machine may have written the same file at the same time, and renamed the part.
        if not (isinstance(error, FileNotFoundError) and path.exists()):
            raise
    sync_folder(path.parent)


def holds(path: Path, size: int, beginning: Iterable[bytes]) -> bool:
    """Whether a file is there, of that size, and begins with these pieces."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size == size and all(file.read(len(p)) == p for p in beginning)
    except (FileNotFoundError, IsADirectoryError):
        return False


def writable_folder(folder: Path) -> Path:
    """A folder that is made where it is not there, and in which a file could be written.

    Raises UsageError when its place is taken by a file, StorageError when nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "Name one that is there, or that is to be made.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise storage_error(error, "nothing was begun") from error
    return folder


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems have no sync for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def typed(error: OSError | MemoryError) -> GanrtError:
    """The typed error of what the system refused: storage, or memory."""
    if isinstance(error, OSError):
        return storage_error(error)
    hint = "Use a smaller --batch or --size, fewer --workers, or a machine that has more."
    return GanrtError("there is not enough memory", hint)


def storage_error(error: OSError, kept: str = "finished images are kept") -> StorageError:
    """The typed error of what the file system said. ``kept``: what the same command goes on from."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk quota is used up" if error.errno == errno.EDQUOT else "no space or inodes left"
        return StorageFull(f"{what}{where}", f"Make room and give the same command again; {kept}.")
    hints = {
        errno.EACCES: "Choose a folder that you may write to.",
        errno.EPERM: "Choose a folder that you may write to.",
        errno.ELOOP: "It is a link, or lies behind links that lead to themselves: remove it.",
        errno.EROFS: "Choose a folder on a file system that is not read-only.",
        errno.ENOENT: "Was the folder removed during the run? Give the same command again.",
        errno.EFBIG: "A limit on file sizes is set (ulimit -f); raise it or use a smaller --shard-size.",
        errno.EMFILE: "A limit on open files is set (ulimit -n); raise it or use fewer --workers.",
    }
    hint = hints.get(error.errno or 0, f"Mend it and give the same command again; {kept}.")
    return StorageError(f"cannot read or write: {error.strerror or error}{where}", hint)
