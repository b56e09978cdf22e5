"""Names of registries, repositories and tags, validated and in one spelling.

Repositories and tags follow the OCI distribution specification 1.1, "Pulling manifests"
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests).
"""

from __future__ import annotations

import re

from regproxy.model.errors import shown
from regproxy.model.hosts import parse_host

DOCKER_HUB = "docker.io"

_MAX_REPOSITORY = 255

# Separators and alphanumerics share no character: every text is matched in one way only, so the
# time is linear in its length.
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def parse_repository(text: str) -> str:
    """The repository, unchanged.

    Raises:
        ValueError: It is no repository by the OCI grammar, or has more than 255 characters.
    """
    if len(text) > _MAX_REPOSITORY or _REPOSITORY.fullmatch(text) is None:
        raise ValueError(
            f"found repository {shown(text)}, expected components of lower-case letters, digits "
            "and single separators, joined by slashes, at most 255 characters"
        )
    return text


def parse_tag(text: str) -> str:
    """The tag, unchanged.

    Raises:
        ValueError: It is no tag by the OCI grammar.
    """
    if _TAG.fullmatch(text) is None:
        raise ValueError(
            f"found tag {shown(text)}, expected at most 128 letters, digits, underscores, dots "
            "and hyphens, the first one no dot or hyphen"
        )
    return text


def parse_registry(text: str) -> str:
    """The registry's name in its one spelling: ``host``, ``host:port`` or ``[IPv6]:port``.

    Upper case is lowered, a trailing dot of the host dropped, an IPv6 address compressed.

    Raises:
        ValueError: It is no host with an optional port.
    """
    try:
        host = parse_host(text)
    except ValueError:
        pass
    else:
        if "_" not in host.name and not text.endswith(":"):
            return str(host)
    raise ValueError(f"found registry {shown(text)}, expected host or host:port")


def looks_like_registry(component: str) -> bool:
    """Whether a first path component names a registry rather than a repository.

    This is the rule by which docker reads image references.
    """
    return "." in component or ":" in component or component == "localhost"


def normalise_repository(registry: str, repository: str) -> str:
    """The repository as its registry knows it: docker.io keeps official images in ``library/``.

    Args:
        registry: The registry's canonical name.
        repository: A valid repository.

    Raises:
        ValueError: With ``library/`` it has more than 255 characters.
    """
    if registry == DOCKER_HUB and "/" not in repository:
        return parse_repository(f"library/{repository}")
    return repository
