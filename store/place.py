"""Where a store lies: a folder of this machine, one zip file, an object store, or a web server.

A `Place` is used like a path: ``place / "student" / part``. Folders are read with the operating system's calls, so that
opening a store imports nothing; everything else goes through TensorStore's key-value stores, which are imported then.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from store.errors import StoreError, Unreachable

if TYPE_CHECKING:
    import tensorstore

PathLike = str | os.PathLike[str]
#: A Zarr v3 group or array is there if, and only if, this file is in its folder.
METADATA = "zarr.json"
#: Patience with a store that is far away: TensorStore tries again, waiting longer each time.
RETRIES = {"max_retries": 6, "initial_delay": "100ms", "max_delay": "5s"}
CREDENTIALS = "OPD_TUI_AWS_CREDENTIALS"
_REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "403", "401", "credentials", "AccessDenied")


class Place(ABC):
    """A folder of a store, or a file in it, wherever it lies. `str(place)` is what people are told."""

    @abstractmethod
    def __truediv__(self, name: str) -> Place:
        """What lies under `name` here."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last piece of its path."""

    @abstractmethod
    def read(self, limit: int) -> bytes:
        """The file's content, at most `limit` bytes of it. Raises FileNotFoundError, or StoreError where it cannot be read."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Names of the folders in this one, sorted; none where it is not there. Raises StoreError."""

    @abstractmethod
    def groups(self, known: Collection[str] = ()) -> list[str]:
        """Names of the folders in this one that are Zarr groups or arrays, sorted: only these are there for a reader.

        Those that are `known` to be so need not be looked into: a group that is there stays.
        """

    @abstractmethod
    def files(self) -> dict[str, int | None] | None:
        """Every file under this folder with its size in bytes, None where that is not told; None where none can be listed."""

    @abstractmethod
    def kvstore(self) -> dict[str, Any]:
        """The folder as TensorStore's specification of a key-value store."""

    @property
    def lists(self) -> bool:
        """Whether looking for folders is cheap; else the store's manifest says what there is."""
        return True


@dataclass(frozen=True, slots=True)
class Folder(Place):
    """A folder or file of this machine. `shown` is the path as it was given, `path` is absolute."""

    path: Path
    shown: Path

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name, self.shown / name)

    def __str__(self) -> str:
        return str(self.shown)

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, limit: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(limit)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"there is no {self}") from error
        except OSError as error:
            raise Unreachable(f"cannot read {self}: {error.strerror}") from error

    def exists(self) -> bool:
        return self.path.is_file()

    def folders(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Unreachable(f"cannot list {self}: {error.strerror}") from error

    def files(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for parent, _, names in os.walk(self.path):
            for name in names:
                path = Path(parent, name)
                with suppress(FileNotFoundError):  # taken away meanwhile
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return found

    def groups(self, known: Collection[str] = ()) -> list[str]:
        here = str(self.path)  # joined as text: a store has thousands of them
        return [name for name in self.folders() if name in known or os.path.isfile(f"{here}/{name}/{METADATA}")]

    def kvstore(self) -> dict[str, Any]:
        return {"driver": "file", "path": f"{self.path}/"}


class _Root(Struct):
    """One key-value store, opened once for all places in it."""

    spec: Mapping[str, Any]  #: TensorStore's, without a path
    label: str  #: URL of its root, for people
    lists: bool
    writable: bool = False
    handle: tensorstore.KvStore | None = None

    def open(self) -> tensorstore.KvStore:
        if self.handle is None:
            import tensorstore

            self.handle = tensorstore.KvStore.open(dict(self.spec)).result()
        return self.handle


@dataclass(frozen=True, slots=True)
class Keys(Place):
    """Keys of a key-value store that TensorStore knows: a zip file, S3, Google Cloud Storage, a web server."""

    root: _Root
    key: str  #: without a slash at its ends

    def __truediv__(self, name: str) -> Keys:
        return Keys(self.root, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.root.label}/{self.key}" if self.key else self.root.label

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]

    def read(self, limit: int) -> bytes:
        found = self._read()
        if found.state != "value":
            raise FileNotFoundError(f"there is no {self}")
        return bytes(found.value[:limit])

    def _read(self) -> tensorstore.KvStore.ReadResult:
        try:
            return self.root.open().read(self.key).result()
        except Exception as error:  # TensorStore has a built-in class of exception for each kind of failure
            raise unreachable(self, error) from error

    def exists(self) -> bool:
        return bool(self._read().state == "value")

    def every_key(self) -> list[str]:
        """All keys under this one, without it, sorted. Raises StoreError."""
        import tensorstore

        prefix = f"{self.key}/" if self.key else ""
        try:
            reach = tensorstore.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord("/") + 1)) if prefix else None
            found = self.root.open().list(reach, strip_prefix_length=len(prefix.encode())).result()
        except Exception as error:  # as above
            raise unreachable(self, error) from error
        return sorted(key.decode("utf-8", "replace") for key in found)

    def folders(self) -> list[str]:
        return sorted({key.split("/", 1)[0] for key in self.every_key() if "/" in key})

    def files(self) -> dict[str, int | None] | None:
        if self.root.spec["driver"] == "http":
            return None
        return dict.fromkeys(self.every_key())

    def groups(self, known: Collection[str] = ()) -> list[str]:
        inside = (key.split("/") for key in self.every_key())
        return sorted({pieces[0] for pieces in inside if len(pieces) == 2 and pieces[1] == METADATA})

    def kvstore(self) -> dict[str, Any]:
        return {**self.root.spec, "path": self.root.spec["path"] + (f"{self.key}/" if self.key else "")}

    @property
    def lists(self) -> bool:
        return self.root.lists

    def write(self, content: bytes, *, if_absent: bool = False) -> bool:
        """Write the file; with `if_absent` only where there is none. False where there was one. Raises StoreError."""
        try:
            store = self.root.open()
            if not if_absent:
                return bool(store.write(self.key, content).result().generation)
            absent = store.read(self.key).result()
            if absent.state == "value":
                return False
            return bool(store.write(self.key, content, if_equal=absent.stamp.generation).result().generation)
        except Exception as error:  # as above
            raise unreachable(self, error) from error

    def remove(self) -> None:
        """Remove this file; it need not be there. Raises StoreError."""
        try:
            self.root.open().write(self.key, None).result()
        except Exception as error:  # as above
            raise unreachable(self, error) from error

    def remove_all(self) -> None:
        """Remove every key under this one, the group's metadata first: then nobody sees what is left. Raises StoreError."""
        try:
            store = self.root.open()
            keys = sorted(self.every_key(), key=lambda key: key != METADATA)
            for key in keys:
                store.write(f"{self.key}/{key}", None).result()
        except StoreError:
            raise
        except Exception as error:  # as above
            raise unreachable(self, error) from error

    def swap(self, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the file by `change(content or None)`, again until no other writer came between. Raises StoreError."""
        try:
            store = self.root.open()
            while True:
                found = store.read(self.key).result()
                content = change(found.value if found.state == "value" else None)
                if store.write(self.key, content, if_equal=found.stamp.generation).result().generation:
                    return
        except StoreError:
            raise
        except Exception as error:  # as above
            raise unreachable(self, error) from error


def parse(location: PathLike | Place) -> Place:
    """The place that a user names: a path, a path to a .zip file, or an s3://, gs://, http:// or https:// address.

    Raises StoreError for an address of another kind. Nothing is opened yet.
    """
    if isinstance(location, Place):
        return location
    text = os.fspath(location)
    if "://" not in text:
        path = Path(os.path.abspath(text))
        return _zip(path, text) if _is_zip(path) else Folder(path, Path(text))
    address = urlsplit(text)
    make = _SCHEMES.get(address.scheme)
    if make is None or not address.netloc:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise StoreError(f"{text} is no address of a store; there are paths, .zip files, and {known}")
    return make(text.rstrip("/"), address.netloc, unquote(address.path).strip("/"))


def is_remote(location: PathLike) -> bool:
    """Whether a user names something that is not on this machine."""
    return "://" in os.fspath(location)


def unreachable(place: Place | str, error: Exception) -> Unreachable:
    """What to say of a key-value store that failed, so that a person knows what to do."""
    reason = " ".join(str(error).split())
    if any(word in reason for word in _REFUSED):
        return Unreachable(
            f"{place} was refused for want of credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
            f"or {CREDENTIALS}=anonymous for what is public ({reason[:160]})"
        )
    if "NOT_FOUND" in reason or "NoSuchBucket" in reason:
        return Unreachable(f"{place} is not there; see whether the bucket and the address are right ({reason[:160]})")
    return Unreachable(f"{place} does not answer; see whether the address and the network are right ({reason[:160]})")


def no_store(place: Place) -> str:
    """Why there is no store at a place where none is, in a sentence."""
    if not isinstance(place, Folder):
        return f"there is no store at {place}; see whether the address is right, and the bucket or the server that it names"
    path = place.shown
    if path.is_dir():
        return f"{path} is a folder, but no store (it has no {METADATA})"
    return f"{path} is a file, not a store" if path.exists() else f"there is no store at {path}"


def _is_zip(path: Path) -> bool:
    """By its first bytes: a zip file with a store in it is not empty, and nothing precedes it."""
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # what is wrong with it is said when it is read


def _zip(path: Path, shown: str) -> Keys:
    return Keys(_Root({"driver": "zip", "base": f"file://{quote(str(path))}", "path": ""}, shown, lists=True), "")


def _s3(text: str, bucket: str, prefix: str) -> Keys:
    spec: dict[str, Any] = {
        "driver": "s3",
        "bucket": bucket,
        "aws_credentials": _aws_credentials(),
        "context": {"s3_request_retries": RETRIES},
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    spec |= {name: value for name, value in (("endpoint", endpoint), ("aws_region", region)) if value}
    return _under(spec, text, prefix, writable=True)


def _aws_credentials() -> dict[str, Any]:
    """The kind of credentials that are there: asking for others makes the AWS library complain on the screen."""
    known = ("environment", "profile", "imds", "ecs", "anonymous", "default")
    kind = os.environ.get(CREDENTIALS, "")
    if kind and kind not in known:
        raise StoreError(f"{CREDENTIALS} is {kind!r}; it can be {', '.join(known)}")
    files = {
        "credentials_file": os.environ.get("AWS_SHARED_CREDENTIALS_FILE", os.path.expanduser("~/.aws/credentials")),
        "config_file": os.environ.get("AWS_CONFIG_FILE", os.path.expanduser("~/.aws/config")),
    }
    present = {name: path for name, path in files.items() if os.path.isfile(path)}
    if not kind:
        in_container = any(name in os.environ for name in _IN_CONTAINER)
        kind = (
            "environment"
            if "AWS_ACCESS_KEY_ID" in os.environ
            else "profile"
            if present
            else "ecs"
            if in_container
            else "anonymous"
        )
    if kind == "profile":
        return {"type": kind, "profile": os.environ.get("AWS_PROFILE", "default"), **present}
    return {"type": kind}


_IN_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def _gcs(text: str, bucket: str, prefix: str) -> Keys:
    return _under({"driver": "gcs", "bucket": bucket, "context": {"gcs_request_retries": RETRIES}}, text, prefix)


def _http(text: str, host: str, prefix: str) -> Keys:
    scheme = urlsplit(text).scheme
    context = {"http_request_retries": RETRIES}
    return _under({"driver": "http", "base_url": f"{scheme}://{host}/", "context": context}, text, prefix)


def _under(spec: dict[str, Any], text: str, prefix: str, *, writable: bool = False) -> Keys:
    return Keys(_Root({**spec, "path": f"{prefix}/" if prefix else ""}, text, lists=False, writable=writable), "")


_SCHEMES: dict[str, Callable[[str, str, str], Keys]] = {"s3": _s3, "gs": _gcs, "http": _http, "https": _http}
