"""What a registry refused, told to the client in the proxy's words with the registry's code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from regproxy.deadline import Deadline
from regproxy.model.errors import (
    RegistryError,
    denied,
    too_many_requests,
    unauthorized,
    upstream_failed,
)
from regproxy.upstream.exchange import Answer, one_line

_BODY_LIMIT = 64 * 1024
_BODY_SECONDS = 5.0
_MESSAGE_LENGTH = 300
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


async def refusal(
    answer: Answer, registry: str, unknown: Callable[[str], RegistryError], deadline: Deadline
) -> RegistryError:
    """The error that tells a client what the registry answered.

    Args:
        answer: An answer that is no success; its body is read.
        registry: The registry's name, for the message.
        unknown: Makes the error of a 404 that brings no code.
        deadline: When the error must be there.
    """
    code, message = await _registry_error(answer, deadline.earlier(_BODY_SECONDS))
    if answer.elsewhere and not _speaks_for_registry(answer.status, code):
        return upstream_failed(f"{registry}: storage at {answer.host} answered {answer.status}")
    said = f"{registry}: {message}" if message else f"{registry} answered {answer.status}"
    if answer.status == 401:
        return unauthorized(said, answer.headers("WWW-Authenticate"))
    if answer.status == 403:
        return denied(said)
    if answer.status == 429:
        return too_many_requests(said, answer.header("Retry-After"))
    if answer.status in (404, 410):
        return RegistryError(404, code, said) if code else unknown(said)
    if 400 <= answer.status < 500:
        return RegistryError(answer.status, code or "UNKNOWN", said)
    return upstream_failed(said)


def _speaks_for_registry(status: int, code: str) -> bool:
    """Whether a refusal from another origin is about what was asked.

    Storage refuses its registry's links (expired, clock off), not the client. But some registries
    redirect to others, which then know that there is no such manifest.
    """
    return status in (416, 429) or (status in (404, 410) and bool(code))


async def _registry_error(answer: Answer, deadline: Deadline) -> tuple[str, str]:
    """Code and message of the first OCI error in the body, empty strings when there is none."""
    try:
        body: Any = json.loads(await answer.read(_BODY_LIMIT, deadline))
        first = body["errors"][0]
        code, message = first.get("code"), first.get("message")
    except (
        RegistryError,
        ValueError,
        RecursionError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
    ):
        return "", ""
    code = code if isinstance(code, str) and _CODE.match(code) else ""
    message = message if isinstance(message, str) else ""
    return code, one_line(message, _MESSAGE_LENGTH)
