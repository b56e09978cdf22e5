"""The table: rows, medians, ratios, and the targets that they are held against."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from attrs import frozen

from benchmarks import machine
from benchmarks.peers import DOCKER_REGISTRY, LINE_RATE, NGINX, REGPROXY, SERVERS
from benchmarks.plan import Plan, Samples


@frozen
class Target:
    """What regproxy must reach in a row.

    Attributes:
        bound: the figure.
        at_least: whether more is better.
        peer: whose figure ours is divided by, or None if the bound is absolute.
        worst: whether every round must reach it, and not only the middle one.
    """

    bound: float
    at_least: bool = True
    peer: str | None = None
    worst: bool = False

    def met(self, samples: Samples, row: str) -> bool | None:
        """Whether it is reached, or None if it was not measured."""
        if self.peer is not None:
            figure = samples.ratio(row, REGPROXY, self.peer)
        elif self.worst and (values := samples.values(row, REGPROXY)):
            figure = min(values) if self.at_least else max(values)
        else:
            figure = samples.median(row, REGPROXY)
        if figure is None:
            return None
        return figure >= self.bound if self.at_least else figure <= self.bound


@frozen
class Row:
    """A line of the table.

    Attributes:
        key: what the loads call it.
        text: what the table calls it; ``{cold}`` and the like are sizes of the plan.
        unit: of its figures.
        digits: after the decimal point.
        target: what regproxy must reach, if anything.
        target_text: the same in words.
    """

    key: str
    text: str
    unit: str
    digits: int = 0
    target: Target | None = None
    target_text: str = ""


_COLD = "cold {cold} MiB, one client"
_HERD = "cold {cold} MiB, 8 clients at once"
_LINE = f"cold {{line}} MiB, upstream behind a line of {LINE_RATE / 1e6:.0f} MB/s"
_CPU = "server CPU s/GiB"


def _stored(key: str, text: str) -> tuple[Row, ...]:
    """Return the rows of a stored blob that is pulled in one way; no target is set for them."""
    return (
        Row(f"{key}-1-rate", f"{text}, one client", "MB/s"),
        Row(f"{key}-1-cpu", f"{text}, one client", _CPU, 2),
        Row(f"{key}-4-rate", f"{text}, 4 clients", "MB/s"),
        Row(f"{key}-4-cpu", f"{text}, 4 clients", _CPU, 2),
        Row(f"{key}-4-one-rate", f"{text}, 4 clients, nginx with one worker", "MB/s"),
    )


ROWS: Sequence[Row] = (
    Row("cold-rate", _COLD, "MB/s", 0, Target(1.0, peer=NGINX), "≥ 1.0 of nginx"),
    Row("cold-first-byte", f"{_COLD}: first byte", "ms", 1),
    Row("cold-cpu", _COLD, _CPU, 2),
    Row("herd-wall", f"{_HERD}: until all are done", "s", 2),
    Row("herd-first-byte", f"{_HERD}: slowest joiner's first byte", "ms", 0),
    Row(
        "herd-first-share",
        f"{_HERD}: the same, of the fill's duration",
        "%",
        1,
        Target(5.0, at_least=False),
        "≤ 5 %",
    ),
    Row(
        "herd-fetched",
        f"{_HERD}: fetched upstream",
        "blobs",
        3,
        Target(1.0, at_least=False, worst=True),
        "exactly 1",
    ),
    Row("line-rate", f"{_LINE}, one client", "MB/s"),
    Row("line-cpu", f"{_LINE}, one client", _CPU, 2),
    Row("line-herd-wall", f"{_LINE}, 8 clients at once: until all are done", "s", 2),
    Row("line-herd-first-byte", f"{_LINE}, 8 clients at once: slowest joiner's first byte", "ms"),
    Row(
        "plain-1-rate",
        "warm {warm} MiB, one client",
        "MB/s",
        0,
        Target(0.85, peer=NGINX),
        "≥ 0.85 of nginx",
    ),
    Row("plain-1-cpu", "warm {warm} MiB, one client", _CPU, 2),
    Row(
        "plain-4-rate",
        "warm {warm} MiB, 4 clients",
        "MB/s",
        0,
        Target(0.6, peer=NGINX),
        "≥ 0.6 of nginx",
    ),
    Row("plain-4-cpu", "warm {warm} MiB, 4 clients", _CPU, 2),
    Row("plain-4-one-rate", "warm {warm} MiB, 4 clients, nginx with one worker", "MB/s"),
    *_stored("tls", "warm {warm} MiB over TLS"),
    *_stored("connect", "warm {warm} MiB, intercepted inside CONNECT"),
    *_stored("sni", "warm {warm} MiB, intercepted by SNI"),
    Row(
        "tag-rate",
        "manifest by tag",
        "requests/s",
        0,
        Target(10.0, peer=DOCKER_REGISTRY),
        "≥ 10 of docker-registry",
    ),
    Row(
        "digest-rate",
        "manifest by digest",
        "requests/s",
        0,
        Target(4.0, peer=DOCKER_REGISTRY),
        "≥ 4 of docker-registry",
    ),
    Row("memory-small", "peak memory, 64 clients, cold {small} MiB", "MiB"),
    Row(
        "memory-large",
        "peak memory, 64 clients, cold {large} MiB",
        "MiB",
        0,
        Target(150.0, at_least=False),
        "≤ 150 MiB",
    ),
    Row(
        "memory-growth",
        "peak memory, large blob over small blob",
        "ratio",
        2,
        Target(1.2, at_least=False),
        "≤ 1.2",
    ),
)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _figure(samples: Samples, row: Row, server: str) -> str:
    """Return a median, with the span of the rounds behind it where there were several."""
    values = samples.values(row.key, server)
    text = _number(samples.median(row.key, server), row.digits)
    if len(values) > 1 and max(values) > min(values):
        low, high = (_number(edge(values), row.digits) for edge in (min, max))
        text += f" ({low} to {high})"
    return text


def _measured(samples: Samples, row: Row) -> bool:
    return any(samples.values(row.key, server) for server in SERVERS)


def _line(samples: Samples, row: Row, sizes: dict[str, int]) -> str:
    verdict = row.target.met(samples, row.key) if row.target is not None else None
    cells = [
        f"{row.text.format(**sizes)} [{row.unit}]",
        *(_figure(samples, row, server) for server in SERVERS),
        *(_number(samples.ratio(row.key, REGPROXY, peer), 2) for peer in SERVERS[1:]),
        row.target_text,
        {True: "met", False: "**not met**", None: ""}[verdict],
    ]
    return "| " + " | ".join(cells) + " |"


def table(samples: Samples, plan: Plan, started: dt.datetime) -> str:
    """Return the whole result as Markdown; rows that were not measured are left out.

    Args:
        samples: the figures.
        plan: the sizes that they were measured with.
        started: when the run began.
    """
    small, large = plan.memory_mebibytes
    sizes = {
        "cold": plan.cold_mebibytes,
        "line": plan.line_mebibytes,
        "warm": plan.warm_mebibytes,
        "small": small,
        "large": large,
    }
    lines = [
        (
            f"Measured on {started:%Y-%m-%d}, {plan.rounds} rounds. "
            "A cell is the median of the rounds, with the lowest and highest behind it; a ratio "
            "is the median of the rounds' ratios."
        ),
        "",
        *machine.describe(),
        "",
        (
            "| what | regproxy | nginx | docker-registry | regproxy / nginx "
            "| regproxy / docker-registry | target | |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        *(_line(samples, row, sizes) for row in ROWS if _measured(samples, row)),
    ]
    if samples.remarks:
        lines += ["", *(f"- {remark}" for remark in samples.remarks)]
    return "\n".join(lines) + "\n"


def verdicts(samples: Samples) -> list[tuple[str, bool | None]]:
    """Return each target in words, and whether it is met (None: not measured)."""
    return [
        (f"{row.key}: {row.target_text}", row.target.met(samples, row.key))
        for row in ROWS
        if row.target is not None
    ]
