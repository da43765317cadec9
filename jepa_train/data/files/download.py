"""Local copy of the data behind a URL or in an archive, made once per machine."""

import functools
import hashlib
import logging
import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from jepa_train.base.errors import require
from jepa_train.data.cache import one_at_a_time
from jepa_train.data.files.listing import is_hidden
from jepa_train.storage.paths import cache_dir, has_url_scheme
from jepa_train.storage.storage import StorageError, StoragePath, storage_path

_log = logging.getLogger(__name__)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
# RuntimeError: a zip that is encrypted, or compressed by an unknown method
_DAMAGED = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, RuntimeError)


def local_folder(where: str, *, download: bool) -> Path:
    """The folder of data.path: itself, or this machine's copy of a URL's folder or of an archive's content.

    Copies are made in the cache, by one process while others wait. A source that has changed is copied again by the
    next process. Path() for "".

    Raises:
        ValueError: the source is missing, neither folder nor archive, damaged, or does not fit on the disk.
        StorageError: the source's storage does not answer.
    """
    path = Path(where).expanduser()
    if not has_url_scheme(where) and not (where.endswith(_ARCHIVES) and path.is_file()):
        return path
    require(not download, f"data.download must be false where data.path is a URL or an archive, got {where!r}; drop it")
    return _local_copy(where if has_url_scheme(where) else str(path.absolute()))


def sibling_path(where: str, name: str) -> str:
    """The path or URL of that name in the folder of a path or URL."""
    if not has_url_scheme(where):
        return str(Path(where).expanduser().parent / name)
    url, question, options = where.partition("?")
    return f"{url.rstrip('/').rpartition('/')[0]}/{name}{question}{options}"


@functools.lru_cache  # a folder of a million files is not listed again for every cell
def _local_copy(where: str) -> Path:
    source = storage_path(where, named="data.path")
    files = source.files()
    packed = [info.path for info in files] == [source.path]
    require(bool(files), f"data.path must name a folder or an archive, got {str(source)!r}, where there is none")
    kinds = " ".join(_ARCHIVES)
    if packed and not source.name.endswith(_ARCHIVES):
        raise ValueError(f"data.path must be a folder or an archive ({kinds}), got {str(source)!r}")
    listing = "".join(f"{info.path}\t{info.size}\t{info.mtime_ns}\n" for info in files)
    version = hashlib.blake2b(f"{source}\n{listing}".encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    target = cache_dir() / "staged" / f"{source.name.partition('.')[0] or 'data'}-{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target) as part:
        if not target.is_dir():
            _log.info("copying %s: %d files, %.1f GB", source, len(files), sum(info.size for info in files) / 1e9)
            _copy(source, target, part, packed=packed)
    if (target / "train").is_dir():
        return target
    folders = [path for path in target.iterdir() if path.is_dir() and not is_hidden(path.name)]
    inner = [path for path in folders if (path / "train").is_dir()] or folders  # in an archive often one level down
    return inner[0] if len(inner) == 1 else target


def _copy(source: StoragePath, target: Path, part: Path, *, packed: bool) -> None:
    """Copy a folder, or the content of an archive, by way of `part`; the target appears whole."""
    shutil.rmtree(part, ignore_errors=True)  # from a process that was killed
    part.mkdir()
    content = part / "content"
    try:
        source.copy_to(part / source.name if packed else content)
        if packed:
            _extract(part / source.name, content)
        try:
            content.rename(target)
        except OSError:  # another process, without a common lock, was faster
            if not target.is_dir():
                raise
    except StorageError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data.path must be a source that can be copied, got {str(source)!r} ({reason})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    """Extract every member; not by shutil.unpack_archive, which drops those of a zip with ".." in their names."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)  # takes no filter: it never leaves the folder
        return
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)  # of the first block that is no member
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the archive has no end marker: it has been cut off, or is damaged")
