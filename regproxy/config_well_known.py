"""The public registries that need no table in the configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from regproxy.config_tables import Registry

_DOCKER_HUB = Registry(
    "docker.io",
    upstream="https://registry-1.docker.io",
    aliases=("index.docker.io", "registry-1.docker.io"),
)
_SERVED_AT_THEIR_NAME = (
    "quay.io",
    "ghcr.io",
    "gcr.io",
    "registry.k8s.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.gitlab.com",
    "nvcr.io",
    "docker.elastic.co",
    "registry.access.redhat.com",
    "lscr.io",
)
WELL_KNOWN: Mapping[str, Registry] = MappingProxyType(
    {each.name: each for each in (_DOCKER_HUB, *map(Registry, _SERVED_AT_THEIR_NAME))}
)
"""The public registries that are configured unless ``well_known = false``, by name."""

SEARCH_HOSTS: Mapping[str, str] = MappingProxyType(
    {_DOCKER_HUB.upstream: "https://index.docker.io"}
)
"""Where a registry's search is, by the registry's upstream, when it is not there."""
