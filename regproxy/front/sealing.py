"""Seals: texts that clients carry and bring back, which only this proxy can read or make.

The key is shared by every process on the machine, and outlives them: what one has sealed another
can open.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import struct
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from twisted.internet.interfaces import IReactorTime

_KEY_LENGTH = 32
_NONCE_LENGTH = 12
_EXPIRY = struct.Struct(">d")
_DAY = 86_400.0


class BrokenSeal(ValueError):
    """No text that this proxy has sealed for this subject, or one that is too old."""


class KeyProblem(ValueError):
    """The key cannot be used; one line that says why."""


class Seals:
    """Seals texts for a purpose and opens them again (AES-256-GCM)."""

    def __init__(
        self,
        key: Callable[[], bytes],
        purpose: str,
        clock: IReactorTime,
        lifetime: float = _DAY,
    ) -> None:
        """Args:
        key: Gives 32 secret bytes (see `load_key`) when they are first needed.
        purpose: What is sealed; seals for one purpose are worth nothing for another.
        clock: Tells the time; across restarts, so that seals hold across them.
        lifetime: Seconds for which a seal can be opened.
        """
        self._key = key
        self._purpose = purpose
        self._clock = clock
        self._lifetime = lifetime

    @cached_property
    def _cipher(self) -> AESGCM:
        derivation = HKDF(SHA256(), _KEY_LENGTH, salt=None, info=self._purpose.encode("utf-8"))
        return AESGCM(derivation.derive(self._key()))

    def seal(self, text: str, subject: str) -> str:
        """*text*, sealed: letters, digits, ``-`` and ``_``.

        Args:
            text: The secret.
            subject: What it is about; to open the seal, the same must be given.
        """
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        plain = _EXPIRY.pack(self._clock.seconds() + self._lifetime) + text.encode("utf-8")
        sealed = nonce + self._cipher.encrypt(nonce, plain, subject.encode("utf-8"))
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")

    def open(self, sealed: str, subject: str) -> str:
        """The text that was sealed for *subject*.

        Raises:
            BrokenSeal: There is none, or its time is over.
        """
        try:
            data = base64.urlsafe_b64decode(sealed.encode("ascii") + b"=" * (-len(sealed) % 4))
            plain = self._cipher.decrypt(
                data[:_NONCE_LENGTH], data[_NONCE_LENGTH:], subject.encode("utf-8")
            )
        except (UnicodeEncodeError, binascii.Error, InvalidTag, ValueError):
            raise BrokenSeal("no seal of this proxy") from None
        (expiry,) = _EXPIRY.unpack_from(plain)
        if self._clock.seconds() >= expiry:
            raise BrokenSeal("this seal is too old")
        return plain[_EXPIRY.size :].decode("utf-8")


def load_key(path: Path) -> bytes:
    """The key in a file, made on first use. Blocks.

    Args:
        path: The file; it is nobody's but the proxy's to read.

    Raises:
        KeyProblem: The file is none of ours, or others may read it.
        OSError: It can be neither read nor made.
    """
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make(path)
    return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        key = file.read(_KEY_LENGTH + 1)
    if mode & 0o077:
        raise KeyProblem(f"{path}: others may read this key; remove it and a new one is made")
    if len(key) != _KEY_LENGTH:
        raise KeyProblem(f"{path}: no key of {_KEY_LENGTH} bytes; remove it and one is made")
    return key


def _make(path: Path) -> None:
    """Puts a new key in place whole, unless another process has just done so."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_LENGTH))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
