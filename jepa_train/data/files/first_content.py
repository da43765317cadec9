"""The first content of image folders seen under each fingerprint, recorded for all that share the storage."""

from jepa_train.storage.storage import StoragePath, storage_dir


def first_content(fingerprint: str) -> str:
    """The content that was seen first under a fingerprint, by all that share the storage; "" if none has been."""
    try:
        return _first(fingerprint).read_bytes().decode()
    except FileNotFoundError:
        return ""


def remember_first(fingerprint: str, content: str) -> None:
    """Record the content as the first one under this fingerprint, unless there is one."""
    if not first_content(fingerprint):
        _first(fingerprint).write_bytes(content.encode())


def _first(fingerprint: str) -> StoragePath:
    return storage_dir() / "data" / fingerprint
