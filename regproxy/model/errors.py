"""What a client is told when a request cannot be served.

Bodies follow the OCI distribution specification 1.1, "Error Codes"
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from attrs import define

_SHOWN_CHARACTERS = 100


def shown(text: str) -> str:
    """Text from the network, quoted, escaped and shortened, fit for a message or a log line."""
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return ascii(text)


@define(eq=False)
class RegistryError(Exception):
    """A refusal, complete with status, OCI error code and headers.

    Attributes:
        status: The HTTP status code.
        code: The OCI error code, upper-case letters and underscores.
        message: One sentence for people.
        detail: Anything that JSON can express, or None to leave it out.
        headers: Further response headers as (name, value) pairs; a name may come several times.
    """

    status: int
    code: str
    message: str
    detail: object | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The refusal on one line, for logs."""
        return f"{self.status} {self.code}: {self.message}"

    def body(self) -> bytes:
        """The OCI error JSON, ASCII only."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return json.dumps({"errors": [error]}, default=str).encode("ascii")


class NotFound(RegistryError):
    """Nothing is served at this path: not under ``/v2/``, or no shape that the OCI API has."""


def not_found(message: str) -> NotFound:
    """404: the path means nothing here."""
    return NotFound(404, "UNSUPPORTED", message)


def name_invalid(message: str) -> RegistryError:
    """400: a registry, repository or tag is malformed."""
    return RegistryError(400, "NAME_INVALID", message)


def digest_invalid(message: str) -> RegistryError:
    """400: a digest is malformed or of an algorithm that is not supported."""
    return RegistryError(400, "DIGEST_INVALID", message)


def unsupported(message: str, status: int = 405) -> RegistryError:
    """405, or the given status: the request is understood and not offered."""
    # RFC 9110 section 15.5.6: a 405 names the methods that are allowed.
    headers = (("Allow", "GET, HEAD"),) if status == 405 else ()
    return RegistryError(status, "UNSUPPORTED", message, headers=headers)


def name_unknown(message: str) -> RegistryError:
    """404: the registry is not configured, or it has no such repository."""
    return RegistryError(404, "NAME_UNKNOWN", message)


def manifest_unknown(message: str) -> RegistryError:
    """404: the repository has no such manifest."""
    return RegistryError(404, "MANIFEST_UNKNOWN", message)


def blob_unknown(message: str) -> RegistryError:
    """404: the repository has no such blob."""
    return RegistryError(404, "BLOB_UNKNOWN", message)


def denied(message: str) -> RegistryError:
    """403: this client may not have this content."""
    return RegistryError(403, "DENIED", message)


def unauthorized(message: str, challenges: Sequence[str]) -> RegistryError:
    """401: the client may try again with a credential.

    Args:
        message: One sentence for people.
        challenges: The values of the WWW-Authenticate headers, in order.
    """
    headers = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
    return RegistryError(401, "UNAUTHORIZED", message, headers=headers)


def too_many_requests(message: str, retry_after: str | None) -> RegistryError:
    """429: upstream limits the rate; its Retry-After (seconds or a date) is passed on."""
    headers = (("Retry-After", retry_after),) if retry_after is not None else ()
    return RegistryError(429, "TOOMANYREQUESTS", message, headers=headers)


def upstream_failed(message: str) -> RegistryError:
    """502: upstream cannot be reached, or what it sent cannot be used."""
    return RegistryError(502, "UNKNOWN", message)


def upstream_too_slow(message: str) -> RegistryError:
    """504: upstream did not answer within its deadline."""
    return RegistryError(504, "UNKNOWN", message)


def range_not_satisfiable(size: int | None) -> RegistryError:
    """416: the Range header is malformed or lies outside the content.

    Args:
        size: The size of the whole content in bytes, or None when it is not known.
    """
    if size is None:
        return RegistryError(416, "RANGE_INVALID", "the requested range cannot be served")
    return RegistryError(
        416,
        "RANGE_INVALID",
        f"the requested range cannot be served: the content has {size} bytes",
        headers=(("Content-Range", f"bytes */{size}"),),
    )


def body_too_large(message: str) -> RegistryError:
    """413: a body is larger than its limit."""
    return RegistryError(413, "SIZE_INVALID", message)
