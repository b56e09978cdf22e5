"""The proxy's own pages: its authority's certificate, and configuration ready for clients.

Each configuration is served as text that a person reads before applying it: a commented head says
which file it is for, what it changes and how it is put there; the rest is that file.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from regproxy.model.hosts import HostPort, parse_host
from regproxy.model.names import DOCKER_HUB, looks_like_registry, parse_repository

_TEXT = "text/plain; charset=utf-8"
_PEM = "application/pem-certificate-chain"
"""RFC 8555 section 9.1."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WIDTH = 96
_CONTAINERD_CA = "/etc/containerd/certs.d/regproxy-ca.crt"


@frozen
class Page:
    """One answer.

    Attributes:
        media_type: Of the body, for ``Content-Type``.
        body: All of it.
    """

    media_type: str
    body: bytes


class NamedRegistry(Protocol):
    """What a page says of a registry besides its name."""

    @property
    def aliases(self) -> Sequence[str]:
        """Its further names."""


class ConfiguredRegistries(Protocol):
    """What the pages need to know of the configuration."""

    @property
    def default_registry(self) -> str:
        """The canonical name of the registry that mirror requests mean."""

    @property
    def registries(self) -> Mapping[str, NamedRegistry]:
        """All configured registries, by canonical name."""


class Pages:
    """What the proxy answers under its own names, outside ``/v2/``."""

    def __init__(self, ca: Callable[[], bytes], lookup: ConfiguredRegistries) -> None:
        """Args:
        ca: Gives the authority's certificate in PEM; asked at each request for it, since the
            authority may be made at first need.
        lookup: The registries that the pages are about.
        """
        self._ca = ca
        self._lookup = lookup

    def find(self, path: str, origin: str) -> Page | None:
        """The page at a path.

        Args:
            path: Of the request, without its query.
            origin: The proxy as this client addressed it: ``http`` or ``https``, a host, and the
                port if it is not the scheme's own.

        Returns:
            None where there is no page, and for an *origin* that is none: what a page names is
            put into files, so nothing but a host comes from a request.
        """
        if path == "/ca.crt":
            return Page(_PEM, self._ca())
        make = _TEXTS.get(path)
        if make is None:
            return None
        try:
            proxy = _Address.of(origin)
        except ValueError:
            return None
        return Page(_TEXT, make(proxy, self._lookup).encode("utf-8"))


@frozen
class _Address:
    """Where this proxy is, as the client sees it."""

    scheme: str
    host: HostPort

    @classmethod
    def of(cls, origin: str) -> _Address:
        scheme, separator, host = origin.partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            raise ValueError("expected http:// or https:// and a host")
        return cls(scheme, parse_host(host))

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def has_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def in_references(self) -> str:
        """The host as it begins an image's name: clients take one without a mark for a user."""
        host = str(self.host)
        if looks_like_registry(host):
            return host
        return f"{host}:{_DEFAULT_PORTS[self.scheme]}"

    def fetch(self, path: str) -> str:
        """The command that prints one of these pages, its certificate verified."""
        trust = "--cacert regproxy-ca.crt " if self.has_tls else ""
        return f"curl -fsS {trust}{shlex.quote(self.url + path)}"


def _prefix(name: str, registry: NamedRegistry) -> str | None:
    """The name of a registry that can be a component of a path, None if it has none."""
    for each in (name, *registry.aliases):
        try:
            return parse_repository(each)
        except ValueError:
            continue
    return None


def _nameless(lookup: ConfiguredRegistries) -> Iterator[str]:
    for name, registry in sorted(lookup.registries.items()):
        if _prefix(name, registry) is None:
            yield f"{name} is not among them: its name cannot stand in a path. Give it an alias."


def _commented(*paragraphs: str) -> str:
    """A head: paragraphs, of which those with line ends are taken as they are."""
    lines: list[str] = []
    for text in paragraphs:
        if lines:
            lines.append("")
        if "\n" in text or text.startswith(" "):
            lines += text.splitlines()
        else:
            lines += textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _listed(lookup: ConfiguredRegistries) -> str:
    return ", ".join(sorted(lookup.registries))


def _authority(proxy: _Address) -> Iterator[str]:
    """How the authority's certificate is fetched, and found to be the right one."""
    insecurely = "-k " if proxy.has_tls else ""
    yield (
        "The certificate of the proxy's authority comes first. Anybody on the way could have "
        "replaced it, so look at it before it is trusted:"
    )
    yield (
        f"  curl -fsS {insecurely}-o regproxy-ca.crt {shlex.quote(proxy.url + '/ca.crt')}\n"
        "  openssl x509 -in regproxy-ca.crt -noout -fingerprint -sha256"
    )
    yield (
        "The fingerprint must be the one that is printed on the proxy's own machine, by its admin "
        "endpoint:"
    )
    yield ("  curl -fsS http://127.0.0.1:5001/ca.crt | openssl x509 -noout -fingerprint -sha256")


def _listener_authority(proxy: _Address) -> Iterator[str]:
    if proxy.has_tls:
        yield from _authority(proxy)
        yield (
            "If this listener was given a certificate of its own, take the certificate of the "
            "authority that signed that instead."
        )


def _install(where: str) -> str:
    return f"sudo install -D -m 0644 regproxy-ca.crt {shlex.quote(where)}"


def _docker(proxy: _Address, lookup: ConfiguredRegistries) -> str:
    prefixes = filter(None, (_prefix(*each) for each in sorted(lookup.registries.items())))
    settings = {}
    paragraphs = [f"dockerd with regproxy at {proxy.url}"]
    if lookup.default_registry == DOCKER_HUB:
        paragraphs.append(
            "registry-mirrors: images of Docker Hub come through the proxy. If it does not answer, "
            "dockerd goes to Docker Hub itself."
        )
        settings["registry-mirrors"] = [proxy.url]
    else:
        paragraphs.append(
            "There are no registry-mirrors here: dockerd would ask them for images of Docker Hub, "
            f"and this proxy takes what names no registry for {lookup.default_registry}."
        )
    if not proxy.has_tls:
        settings["insecure-registries"] = [proxy.in_references]
        paragraphs.append(
            "insecure-registries: allows image names that begin with the proxy, over plain HTTP."
        )
    paragraphs += [
        "Any registry that the proxy knows, by such a name:",
        f"  docker pull {proxy.in_references}/REGISTRY/REPOSITORY:TAG",
        f"where REGISTRY is one of {', '.join(prefixes)}.",
        *_nameless(lookup),
        f"To keep the names as they are for every registry, see {proxy.url}/setup/systemd",
        *_listener_authority(proxy),
    ]
    if proxy.has_tls:
        where = f"/etc/docker/certs.d/{proxy.in_references}/ca.crt"
        paragraphs.append(f"  {_install(where)}")
    paragraphs += [
        (
            "File: /etc/docker/daemon.json, which may hold no comments. If there is one already, "
            "add the keys to it by hand; else:"
        ),
        (
            "  sudo mkdir -p /etc/docker\n"
            f"  {proxy.fetch('/setup/docker')} | grep -v '^#' | sudo tee /etc/docker/daemon.json\n"
            "  sudo systemctl restart docker"
        ),
    ]
    return f"{_commented(*paragraphs)}\n{json.dumps(settings, indent=2)}\n"


def _containerd(proxy: _Address, lookup: ConfiguredRegistries) -> str:
    where = "/etc/containerd/certs.d/_default/hosts.toml"
    paragraphs = [
        f"containerd with regproxy at {proxy.url}",
        (
            "Images of every registry come through the proxy, their names unchanged. It knows the "
            f"registries {_listed(lookup)}; for any other, and when the proxy does not answer, "
            "containerd goes to the registry itself."
        ),
        *_listener_authority(proxy),
    ]
    if proxy.has_tls:
        paragraphs.append(f"  {_install(_CONTAINERD_CA)}")
    paragraphs += [
        f"File: {where}. It is read for each pull:",
        (
            f"  sudo mkdir -p /etc/containerd/certs.d/_default\n"
            f"  {proxy.fetch('/setup/containerd')} | sudo tee {where}"
        ),
        (
            "A registry with a directory of its own beside _default needs the same in there. "
            "containerd has to be told of the directory once, in /etc/containerd/config.toml. "
            "containerd 2:"
        ),
        (
            '  [plugins."io.containerd.cri.v1.images".registry]\n'
            '    config_path = "/etc/containerd/certs.d"'
        ),
        "containerd 1:",
        (
            '  [plugins."io.containerd.grpc.v1.cri".registry]\n'
            '    config_path = "/etc/containerd/certs.d"'
        ),
        "ctr has to be told each time: ctr images pull --hosts-dir /etc/containerd/certs.d NAME",
    ]
    ca = f"  ca = {json.dumps(_CONTAINERD_CA)}\n" if proxy.has_tls else ""
    return (
        f"{_commented(*paragraphs)}\n"
        f'[host.{json.dumps(proxy.url)}]\n  capabilities = ["pull", "resolve"]\n{ca}'
    )


def _podman(proxy: _Address, lookup: ConfiguredRegistries) -> str:
    where = "/etc/containers/registries.conf.d/regproxy.conf"
    paragraphs = [
        f"podman, Buildah, skopeo and CRI-O with regproxy at {proxy.url}",
        (
            "Images of the registries below come through the proxy, their names unchanged. If it "
            "does not give the manifest, the client goes to the registry itself."
        ),
        *_nameless(lookup),
        *_listener_authority(proxy),
    ]
    if proxy.has_tls:
        place = f"/etc/containers/certs.d/{proxy.in_references}/ca.crt"
        paragraphs.append(f"  {_install(place)}")
    paragraphs += [
        f"File: {where}. It is read for each pull (by CRI-O: systemctl reload crio):",
        f"  {proxy.fetch('/setup/podman')} | sudo tee {where}",
    ]
    return "\n".join([_commented(*paragraphs), *_mirrors(proxy, lookup)])


def _mirrors(proxy: _Address, lookup: ConfiguredRegistries) -> Iterator[str]:
    insecure = "" if proxy.has_tls else "insecure = true\n"
    for name, registry in sorted(lookup.registries.items()):
        prefix = _prefix(name, registry)
        if prefix is None:
            continue
        mirror = json.dumps(f"{proxy.in_references}/{prefix}")
        for each in (name, *filter(looks_like_registry, registry.aliases)):
            yield (
                f"[[registry]]\nlocation = {json.dumps(each)}\n\n"
                f"[[registry.mirror]]\nlocation = {mirror}\n{insecure}"
            )


def _systemd(proxy: _Address, lookup: ConfiguredRegistries) -> str:
    directory = "/etc/systemd/system/docker.service.d"
    paragraphs = [
        f"systemd units with regproxy at {proxy.url} as their proxy",
        (
            "Images of every registry that the proxy knows come through it, their names "
            f"unchanged: {_listed(lookup)}. It answers in their place, with certificates of its "
            "own authority, which this host has to trust. Other hosts are refused unless the "
            "proxy's [connect] tunnel allows them; add those that are reached directly to NO_PROXY."
        ),
    ]
    if proxy.has_tls:
        paragraphs.append(
            "Here even the connection to the proxy is TLS. A client that cannot do that needs the "
            "address of a plain listener: fetch this page from there."
        )
    paragraphs += [
        *_authority(proxy),
        (
            "For Docker Hub behind a proxy dockerd looks at the system's trust alone, not at "
            "certs.d. Debian and its kin:"
        ),
        (
            f"  {_install('/usr/local/share/ca-certificates/regproxy.crt')}\n"
            "  sudo update-ca-certificates"
        ),
        "Fedora and its kin:",
        f"  {_install('/etc/pki/ca-trust/source/anchors/regproxy.crt')}\n  sudo update-ca-trust",
        f"File: {directory}/regproxy.conf, and the same in containerd.service.d for containerd:",
        (
            f"  sudo mkdir -p {directory}\n"
            f"  {proxy.fetch('/setup/systemd')} | sudo tee {directory}/regproxy.conf\n"
            "  sudo systemctl daemon-reload\n"
            "  sudo systemctl restart docker"
        ),
    ]
    # Clients would otherwise ask the proxy for a tunnel to itself.
    direct = f"localhost,127.0.0.1,::1,{proxy.host.name}"
    environment = f'Environment="HTTPS_PROXY={proxy.url}" "NO_PROXY={direct}"'
    return f"{_commented(*paragraphs)}\n[Service]\n{environment}\n"


def _index(proxy: _Address, lookup: ConfiguredRegistries) -> str:
    paragraphs = [
        f"regproxy at {proxy.url}",
        f"It knows the registries {_listed(lookup)}.",
        "Configuration to read, and then to apply:",
        (
            f"  {proxy.url}/setup/docker      Docker Hub as a mirror, others by path prefix\n"
            f"  {proxy.url}/setup/containerd  every registry, with hosts.toml\n"
            f"  {proxy.url}/setup/podman      every registry, for podman and its kin\n"
            f"  {proxy.url}/setup/systemd     every registry, with HTTPS_PROXY in a unit"
        ),
        *_authority(proxy),
        "A client started by hand takes its proxy from the environment:",
        f"  export HTTPS_PROXY={shlex.quote(proxy.url)}",
    ]
    return _commented(*paragraphs)


_TEXTS: Mapping[str, Callable[[_Address, ConfiguredRegistries], str]] = {
    "/setup": _index,
    "/setup/": _index,
    "/setup/docker": _docker,
    "/setup/containerd": _containerd,
    "/setup/podman": _podman,
    "/setup/systemd": _systemd,
}
