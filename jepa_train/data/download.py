"""data.path as a folder of this machine: what is named by URL, or packed in an archive, is copied once per machine."""

import functools
import hashlib
import logging
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pyarrow import fs

from jepa_train.base.errors import require, short_repr
from jepa_train.data.cache import one_at_a_time, part_of, remove
from jepa_train.storage.base import StorageError, StoragePath, has_url_scheme
from jepa_train.storage.bucket import listed, opened, patiently
from jepa_train.storage.paths import cache_dir, made_cache_dir
from jepa_train.storage.resolve import storage_path

_log = logging.getLogger(__name__)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)


def local_folder(where: str, *, download: bool) -> Path:
    """The folder of data.path: itself, or this machine's copy of a URL's folder, or what an archive holds, unpacked.

    Copies lie below paths.cache_dir; of several processes one copies, the others wait. What has changed where it comes
    from is copied anew, in the next process. Path() for "".

    Raises:
        ValueError: nothing lies there, it is neither folder nor archive, there is no room; an archive is damaged, would
            write outside its folder, or holds more than files and folders, as links.
        StorageError: what holds it is away, or refuses.
    """
    remote = has_url_scheme(where)
    if not remote and not (where.endswith(_ARCHIVES) and Path(where).expanduser().is_file()):
        return Path(where).expanduser()
    require(not download, f"data.download must be false where data.path is a URL or an archive, got {where!r}; drop it")
    return _staged(where if remote else str(Path(where).expanduser().absolute()))


def beside(where: str, name: str) -> str:
    """What lies next to a path or URL under that name."""
    if not has_url_scheme(where):
        return str(Path(where).expanduser().parent / name)
    url, question, options = where.partition("?")
    return f"{url.rstrip('/').rpartition('/')[0]}/{name}{question}{options}"


@functools.lru_cache  # a folder of a million files is not listed again for every cell
def _staged(where: str) -> Path:
    place = storage_path(where, named="data.path")
    try:
        files = patiently(lambda: _files(place), f"data.path {str(place)!r} cannot be read")
        text = "".join(f"{info.path}\t{info.size}\t{info.mtime_ns}\n" for info in files)
        version = hashlib.blake2b(f"{place}\n{text}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        target = made_cache_dir() / "staged" / f"{place.name.partition('.')[0] or 'data'}-{version}"
        target.parent.mkdir(exist_ok=True)
        if not target.is_dir():
            with one_at_a_time(target.with_suffix(".lock")):
                if not target.is_dir():
                    _fetch(place, files, target)
    except StorageError:
        raise
    except OSError as error:
        raise ValueError(f"data.path must be data that can be copied here, got {str(place)!r} ({error})") from error
    return _root(target)


def _files(place: StoragePath) -> list[fs.FileInfo]:
    """The files below a folder, or the archive."""
    files = listed(place)
    require(bool(files), f"data.path must name a folder or an archive, got {str(place)!r}, where there is none")
    if files[0].path == opened(place)[1] and not files[0].path.endswith(_ARCHIVES):
        raise ValueError(f"data.path must be a folder or an archive ({' '.join(_ARCHIVES)}), got {str(place)!r}")
    return files


def _fetch(place: StoragePath, files: list[fs.FileInfo], target: Path) -> None:
    """Copy, and unpack, under another name: the target appears whole."""
    client, path = opened(place)
    packed = bool(files) and files[0].path == path
    size = sum(info.size for info in files)
    _log.info("copying %s to %s: %d files, %.1f GB", place, target, len(files), size / 1e9)
    beside_it = size if packed and place.name.endswith(".tar") else 0  # of the others only the archive knows
    _check_room(size + beside_it, shutil.disk_usage(target.parent).free)
    part = part_of(target)
    try:
        if packed:
            archive = part / place.name
            part.mkdir()
            _copy(client, path, archive, place)
            _unpack(archive, part / "content", place)
            _rename(part / "content", target)
        else:
            for info in files:
                _check_inside(info.path.removeprefix(path).lstrip("/"), place)
            _copy(client, path, part, place)
            _rename(part, target)
    finally:
        remove(part)


def _rename(made: Path, target: Path) -> None:
    """Unless another process, with which there is no common lock, has been faster: the content is the same."""
    try:
        made.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def _copy(client: fs.FileSystem, path: str, to: Path, place: StoragePath) -> None:
    """A try after one that failed writes over what that one left."""
    local = fs.LocalFileSystem()
    patiently(
        lambda: fs.copy_files(path, str(to), source_filesystem=client, destination_filesystem=local),
        f"data.path {str(place)!r} cannot be copied to {to}",
    )


def _unpack(archive: Path, to: Path, place: StoragePath) -> None:
    """Into a new folder, and nowhere else: no member may lead out of it by its name, and none is a link."""
    to.mkdir()
    free = shutil.disk_usage(to).free
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    _check_inside(name, place)
                _check_room(sum(info.file_size for info in zipped.infolist()), free)
                zipped.extractall(to)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(to, members=_plain(tar, free), filter="data")
                _check_whole(tar)
    except _DAMAGED as error:
        said = " ".join(str(error).split())[:200]
        reason = "it is none, or damaged" if isinstance(error, tarfile.ReadError) and "method" in said else said
        raise ValueError(f"data.path must be a whole and harmless archive, got {str(place)!r} ({reason})") from error


def _plain(tar: tarfile.TarFile, free: int) -> Iterator[tarfile.TarInfo]:
    """The members, all of them files and folders, while there is room.

    Links are not left to tarfile's filter: that of Python before 3.11.13 follows a long chain of them out of the folder
    (CVE-2025-4517).
    """
    size = 0
    for member in tar:
        if not (member.isfile() or member.isdir()):
            remedy = "pack it with tar --dereference --hard-dereference"
            raise tarfile.TarError(f"{short_repr(member.name)} is neither a file nor a folder; {remedy}")
        size += member.size
        _check_room(size, free)
        yield member


def _check_room(size: int, free: int) -> None:
    if size > free:
        raise OSError(f"{cache_dir()} needs {size / 1e9:.2f} GB and has {free / 1e9:.2f} GB free; set JEPA_CACHE")


def _check_whole(tar: tarfile.TarFile) -> None:
    """A block of zeros ends an archive; tarfile takes one that was cut between two members for a shorter one."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.TarError("its end is missing: copy it again")


def _check_inside(name: str, place: StoragePath) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"data.path must hold no name that leads out of its folder, got {name!r} in {str(place)!r}")


def _root(folder: Path) -> Path:
    """The folder of images: in an archive it often lies within one folder."""
    if (folder / "train").is_dir():
        return folder
    within = [entry for entry in os.scandir(folder) if entry.is_dir() and Path(entry.path, "train").is_dir()]
    return Path(within[0].path) if len(within) == 1 else folder
