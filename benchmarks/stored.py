"""The loads of blobs that the cache has: over plain HTTP, over TLS, and intercepted."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path

from attrs import frozen

from benchmarks.accounting import cpu_seconds, cpu_spent
from benchmarks.blobs import Blob, push_blob
from benchmarks.clients import ClientError, by_name, order, read
from benchmarks.peers import (
    NGINX,
    NGINX_ONE_WORKER,
    REGISTRY_NAME,
    REGPROXY,
    REGPROXY_INTERCEPTING,
)
from benchmarks.plan import GIB, Bench, rotated
from benchmarks.reader import Order
from benchmarks.servers import Server

CLIENTS = (1, 4)
_SETTLE_TRIES = 8


@frozen
class _Pull:
    """A way to pull the blob from a server.

    Attributes:
        rows: which rows it belongs to, by the beginnings of their keys.
        column: whose figures they are.
        server: who is asked.
        order: what each client does.
    """

    rows: Sequence[str]
    column: str
    server: Server
    order: Order


def _store(bench: Bench, pull: _Pull, blob: Blob) -> None:
    """Pull a blob until the cache serves it by itself, and check its digest on the way.

    Raises:
        ClientError: the digest was wrong, or the cache never kept it.
    """
    name = pull.server.name
    for _ in range(_SETTLE_TRIES):
        mark = bench.upstream.mark()
        (reading,) = read([Order({**pull.order, "verify": True})])
        if f"sha256:{reading['sha256']}" != blob.digest:
            raise ClientError(f"{name} served wrong bytes")
        if reading["cipher"] and name != NGINX_ONE_WORKER:
            bench.samples.remark(f"TLS cipher with {name}: {reading['cipher']}.")
        bench.upstream.wait_until_quiet()
        if bench.upstream.mark() == mark:
            return
    raise ClientError(f"{name} never served the blob from its cache")


def _rate_and_cost(pull: _Pull, blob: Blob, clients: int) -> tuple[float, float]:
    """Pull a stored blob with some clients at once.

    Returns:
        The rate in MB/s, and the server's processor seconds per GiB.

    Raises:
        ClientError: a client failed.
    """
    pids = pull.server.pids()
    before = cpu_seconds(pids)
    readings = read([pull.order] * clients)
    spent = cpu_spent(before)
    size = blob.size * clients
    ended = max(reading["ended"] for reading in readings)
    seconds = ended - min(reading["started"] for reading in readings)
    return size / seconds / 1e6, spent * GIB / size


def _compare(bench: Bench, blob: Blob, pulls: Sequence[_Pull]) -> None:
    """Measure each way to pull a blob once a round, with one client and with several.

    nginx as a single process, like regproxy, has rows of its own with several clients.
    """
    single = [pull for pull in pulls if pull.server.name == NGINX_ONE_WORKER]
    others = [pull for pull in pulls if pull not in single]
    for pull in pulls:
        _store(bench, pull, blob)
    for turn in range(bench.plan.rounds):
        for clients in CLIENTS:
            for pull in rotated(others, turn) + (single if clients > 1 else []):
                what = f"{' and '.join(pull.rows)}-{clients} {pull.server.name}"
                with bench.forgiving(what):
                    rate, cpu = _rate_and_cost(pull, blob, clients)
                    bench.say(f"  {what}: {rate:.0f} MB/s")
                    for row in (f"{each}-{clients}" for each in pull.rows):
                        if pull not in single:
                            bench.samples.add(f"{row}-rate", pull.column, rate)
                            bench.samples.add(f"{row}-cpu", pull.column, cpu)
                        if pull in single or (pull.column == REGPROXY and single and clients > 1):
                            bench.samples.add(f"{row}-one-rate", pull.column, rate)


def _warm(bench: Bench, *, tls: bool) -> None:
    blob = push_blob(bench.upstream.port, bench.plan.warm_mebibytes)
    single = [NGINX_ONE_WORKER] if NGINX in bench.names else []
    pulls = []
    for name in (*bench.names, *single):
        server = bench.launcher.start(name, tls=tls)
        asked = order(server.port(tls=tls), blob.target, tls=tls)
        column = NGINX if name == NGINX_ONE_WORKER else name
        pulls.append(_Pull(["tls" if tls else "plain"], column, server, asked))
    _compare(bench, blob, pulls)
    bench.launcher.stop_all()


def warm(bench: Bench) -> None:
    """One and four clients ask over plain HTTP for a blob that the cache has."""
    _warm(bench, tls=False)


def tls(bench: Bench) -> None:
    """One and four clients ask over TLS for a blob that the cache has."""
    _warm(bench, tls=True)


def _authority(server: Server) -> Path:
    """Fetch the certificate that clients of an intercepting regproxy have to trust.

    Raises:
        ClientError: it is not offered.
    """
    connection = HTTPConnection("127.0.0.1", server.port(tls=False), timeout=30)
    try:
        connection.request("GET", "/ca.crt")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ClientError(f"{server.name} answered {response.status} for /ca.crt")
    file = server.setting.directory / "authority.pem"
    file.write_bytes(body)
    return file


def interception(bench: Bench) -> None:
    """The same as over TLS, from regproxy inside CONNECT and by SNI; nginx terminates TLS."""
    blob = push_blob(bench.upstream.port, bench.plan.warm_mebibytes)
    pulls = []
    if REGPROXY in bench.names:
        server = bench.launcher.start(REGPROXY_INTERCEPTING, tls=True)
        trusted = _authority(server)
        for row in ("connect", "sni"):
            asked = order(server.port(tls=row == "sni"), blob.target, tls=True)
            asked = by_name(asked, REGISTRY_NAME, trusted, connect=row == "connect")
            pulls.append(_Pull([row], REGPROXY, server, asked))
    if NGINX in bench.names:
        for name in (NGINX, NGINX_ONE_WORKER):
            server = bench.launcher.start(name, tls=True)
            asked = order(server.port(tls=True), blob.target, tls=True)
            asked = by_name(asked, REGISTRY_NAME, server.setting.certificate)
            pulls.append(_Pull(["connect", "sni"], NGINX, server, asked))
    if pulls:
        _compare(bench, blob, pulls)
    bench.launcher.stop_all()
