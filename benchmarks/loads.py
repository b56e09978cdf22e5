"""The loads: each adds its rows to the samples. Those of stored blobs are in `stored`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection

from benchmarks.accounting import cpu_seconds, cpu_spent, peak_memory, reset_peak_memory
from benchmarks.blobs import MANIFEST_TYPE, MIB, Blob, push_blob, push_image
from benchmarks.clients import ClientError, Clients, order, read
from benchmarks.peers import LINE
from benchmarks.plan import GIB, Bench
from benchmarks.servers import Server
from benchmarks.stored import interception, tls, warm

HERD = 8
CROWD = 64
REQUEST_CONNECTIONS = 8
_LINE_ROUNDS = 3  # the line, not the machine, sets the pace: little varies


@contextmanager
def _fresh(bench: Bench, name: str, warm_up: Blob, upstream: str | None = None) -> Iterator[Server]:
    """Start a server on an empty cache; a small blob has been through it when it is given."""
    server = bench.launcher.start(name, upstream=upstream)
    try:
        read([order(server.port(tls=False), warm_up.target)])
        yield server
    finally:
        if server in bench.launcher.running:
            bench.launcher.stop(server)


def _touch_memory(bench: Bench, mebibytes: int) -> None:
    """Make the memory that a fill is about to take cost the same for every server.

    A virtual machine gives unused memory back to its host, and the next to write there pays for
    it: several times what the write itself costs. So as much is written and deleted just before.
    """
    piece = bytes(MIB)
    file = bench.launcher.directory / "touched"
    with file.open("wb", buffering=0) as output:
        for _ in range(mebibytes):
            output.write(piece)
    file.unlink()


def cold(bench: Bench) -> None:
    """One client asks for a blob that the cache does not have."""
    small = push_blob(bench.upstream.port, 1)
    blob = push_blob(bench.upstream.port, bench.plan.cold_mebibytes)
    for turn in range(bench.plan.rounds):
        for name in bench.order_of(turn):
            with bench.forgiving(f"cold, {name}"), _fresh(bench, name, small) as server:
                pids = server.pids()
                _touch_memory(bench, bench.plan.cold_mebibytes * 2)
                before = cpu_seconds(pids)
                (reading,) = read([order(server.port(tls=False), blob.target)])
                spent = cpu_spent(before)
                seconds = reading["ended"] - reading["started"]
                waited = reading["first_byte"] - reading["started"]
                bench.samples.add("cold-rate", name, blob.size / seconds / 1e6)
                bench.samples.add("cold-first-byte", name, waited * 1e3)
                bench.samples.add("cold-cpu", name, spent * GIB / blob.size)
                bench.say(f"  cold {name}: {blob.size / seconds / 1e6:.0f} MB/s")


def herd(bench: Bench) -> None:
    """Eight clients ask at one moment for a blob that the cache does not have."""
    small = push_blob(bench.upstream.port, 1)
    blob = push_blob(bench.upstream.port, bench.plan.cold_mebibytes)
    for turn in range(bench.plan.rounds):
        for name in bench.order_of(turn):
            with bench.forgiving(f"herd, {name}"), _fresh(bench, name, small) as server:
                _touch_memory(bench, bench.plan.cold_mebibytes * 2)
                mark = bench.upstream.mark()
                readings = read([order(server.port(tls=False), blob.target)] * HERD)
                bench.upstream.wait_until_quiet()
                bench.launcher.stop(server)  # what it still fetches ends, and is logged
                bench.upstream.wait_until_quiet()
                started = min(reading["started"] for reading in readings)
                wall = max(reading["ended"] for reading in readings) - started
                # The first to get a byte is the one that the others joined.
                waits = sorted(reading["first_byte"] - started for reading in readings)
                transfers = bench.upstream.transfers(blob, mark)
                fill = max(transfer.seconds for transfer in transfers)
                fetched = sum(transfer.size for transfer in transfers) / blob.size
                bench.samples.add("herd-wall", name, wall)
                bench.samples.add("herd-first-byte", name, waits[-1] * 1e3)
                bench.samples.add("herd-first-share", name, waits[-1] / fill * 100)
                bench.samples.add("herd-fetched", name, fetched)
                bench.say(
                    f"  herd {name}: {wall:.2f} s, slowest joiner's first byte "
                    f"{waits[-1] * 1e3:.0f} ms of {fill:.2f} s, {fetched:.2f} blobs fetched"
                )


def line(bench: Bench) -> None:
    """The same, one client and then eight, with upstream behind a line of limited rate."""
    small = push_blob(bench.upstream.port, 1)
    blob = push_blob(bench.upstream.port, bench.plan.line_mebibytes)
    upstream = f"http://127.0.0.1:{bench.launcher.start(LINE).port(tls=False)}"
    for turn in range(min(bench.plan.rounds, _LINE_ROUNDS)):
        for name in bench.order_of(turn):
            for clients in (1, HERD):
                with (
                    bench.forgiving(f"line, {name}"),
                    _fresh(bench, name, small, upstream) as server,
                ):
                    pids = server.pids()
                    before = cpu_seconds(pids)
                    readings = read([order(server.port(tls=False), blob.target)] * clients)
                    spent = cpu_spent(before)
                    started = min(reading["started"] for reading in readings)
                    seconds = max(reading["ended"] for reading in readings) - started
                    first = max(reading["first_byte"] for reading in readings) - started
                    bench.say(f"  line {name}, {clients}: {seconds:.2f} s, first {first * 1e3:.0f}")
                    if clients == 1:
                        bench.samples.add("line-rate", name, blob.size / seconds / 1e6)
                        bench.samples.add("line-cpu", name, spent * GIB / blob.size)
                    else:
                        bench.samples.add("line-herd-wall", name, seconds)
                        bench.samples.add("line-herd-first-byte", name, first * 1e3)
    bench.launcher.stop_all()


def _manifest(server: Server, target: str) -> bytes:
    """Ask for a manifest once, so that the cache has it.

    Raises:
        ClientError: the answer was no 200.
    """
    connection = HTTPConnection("127.0.0.1", server.port(tls=False), timeout=30)
    try:
        connection.request("GET", target, headers={"Accept": MANIFEST_TYPE})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ClientError(f"{server.name} answered {response.status} for {target}")
    return body


def _requests_per_second(server: Server, target: str, seconds: int) -> float:
    """Measure with wrk, over connections that are kept open.

    Raises:
        ClientError: wrk failed, or an answer was no 200.
    """
    program = shutil.which("wrk")
    if program is None:
        raise ClientError("wrk is not installed")
    done = subprocess.run(
        [
            program,
            "--threads=1",
            f"--connections={REQUEST_CONNECTIONS}",
            f"--duration={seconds}s",
            f"--header=Accept: {MANIFEST_TYPE}",
            f"http://127.0.0.1:{server.port(tls=False)}{target}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if rate is None or "Non-2xx" in done.stdout:
        raise ClientError(f"wrk said: {done.stdout[-500:]}{done.stderr[-500:]}")
    return float(rate[1])


def manifests(bench: Bench) -> None:
    """Eight connections ask for one manifest over and over, by its tag and by its digest."""
    image = push_image(bench.upstream.port)
    servers = {name: bench.launcher.start(name) for name in bench.order_of(0)}
    targets = {"tag": image.by_tag, "digest": image.by_digest}
    for server in servers.values():
        for target in targets.values():
            body = _manifest(server, target)
            if f"sha256:{hashlib.sha256(body).hexdigest()}" != image.digest:
                raise ClientError(f"{server.name} served a wrong manifest")
    for turn in range(bench.plan.rounds):
        for row, target in targets.items():
            for name in bench.order_of(turn):
                with bench.forgiving(f"manifest by {row}, {name}"):
                    seconds = bench.plan.request_seconds
                    rate = _requests_per_second(servers[name], target, seconds)
                    bench.samples.add(f"{row}-rate", name, rate)
                    bench.say(f"  manifest by {row} {name}: {rate:.0f} requests/s")
    bench.launcher.stop_all()


def memory(bench: Bench) -> None:
    """64 clients ask at one moment for a cold blob, a small one and then a large one."""
    tiny = push_blob(bench.upstream.port, 1)
    peaks: dict[str, list[float]] = {}
    for row, mebibytes in zip(("small", "large"), bench.plan.memory_mebibytes, strict=True):
        blob = push_blob(bench.upstream.port, mebibytes)
        for name in bench.order_of(0):
            with bench.forgiving(f"memory, {name}"), _fresh(bench, name, tiny) as server:
                reset_peak_memory(server.pids())
                asked = order(
                    server.port(tls=False),
                    blob.target,
                    clients=CROWD,
                    seconds=bench.plan.crowd_seconds,
                )
                with Clients([asked], "benchmarks.crowd") as crowd:
                    (reading,) = crowd.run()
                peak = peak_memory(server.pids())
                peaks.setdefault(name, []).append(peak)
                bench.samples.add(f"memory-{row}", name, peak)
                bench.say(f"  {CROWD} clients, {mebibytes} MiB, {name}: peak {peak:.0f} MiB")
                if reading["complete"] < CROWD:
                    bench.samples.remark(
                        f"Memory, {name}, {mebibytes} MiB: {reading['complete']} of {CROWD} "
                        f"clients were done when they were sent home after "
                        f"{bench.plan.crowd_seconds:.0f} s."
                    )
    for name, (small, large) in ((n, p) for n, p in peaks.items() if len(p) == 2):
        bench.samples.add("memory-growth", name, large / small)


LOADS: Mapping[str, Callable[[Bench], None]] = {
    "cold": cold,
    "herd": herd,
    "line": line,
    "warm": warm,
    "tls": tls,
    "interception": interception,
    "manifests": manifests,
    "memory": memory,
}
