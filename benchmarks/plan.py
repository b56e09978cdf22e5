"""How much is measured, and where the figures are collected."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from attrs import define, field, frozen

from benchmarks.clients import ClientError
from benchmarks.servers import Launcher
from benchmarks.upstream import Upstream

GIB = 1024**3

_T = TypeVar("_T")


@frozen
class Plan:
    """The sizes of a run.

    Attributes:
        rounds: how often everything but memory is measured.
        cold_mebibytes: size of the blob of the cold rows.
        line_mebibytes: size of the blob of the rows with a line to upstream.
        warm_mebibytes: size of the blob of the warm rows.
        memory_mebibytes: sizes of the two blobs of the memory rows, the small one first.
        request_seconds: how long manifests are asked for, each time.
        crowd_seconds: when the crowd of the memory rows is sent home.
    """

    rounds: int
    cold_mebibytes: int
    line_mebibytes: int
    warm_mebibytes: int
    memory_mebibytes: tuple[int, int]
    request_seconds: int
    crowd_seconds: float


FULL = Plan(
    rounds=5,
    cold_mebibytes=512,
    line_mebibytes=128,
    warm_mebibytes=1024,
    memory_mebibytes=(256, 1024),
    request_seconds=3,
    crowd_seconds=60.0,
)
QUICK = Plan(
    rounds=2,
    cold_mebibytes=256,
    line_mebibytes=64,
    warm_mebibytes=512,
    memory_mebibytes=(64, 256),
    request_seconds=2,
    crowd_seconds=8.0,
)


@define
class Samples:
    """Every figure of a run, by row and server, in the order of the rounds.

    Attributes:
        remarks: what a reader of the table should know, such as a load that failed.
    """

    remarks: list[str] = field(factory=list)
    _values: dict[tuple[str, str], list[float]] = field(factory=dict)

    def add(self, row: str, server: str, value: float) -> None:
        """Keep one round's figure."""
        self._values.setdefault((row, server), []).append(value)

    def remark(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def values(self, row: str, server: str) -> Sequence[float]:
        """Return the figures of all rounds; none if the row was not measured."""
        return self._values.get((row, server), ())

    def median(self, row: str, server: str) -> float | None:
        """Return the middle of the rounds, or None if the row was not measured."""
        values = self.values(row, server)
        return statistics.median(values) if values else None

    def ratio(self, row: str, server: str, peer: str) -> float | None:
        """Return the median of the rounds' ratios, so that drift of the machine cancels out.

        Returns:
            None if either was not measured, or not in the same rounds.
        """
        ours, theirs = self.values(row, server), self.values(row, peer)
        if not ours or len(ours) != len(theirs) or not all(theirs):
            return None
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@frozen
class Bench:
    """What a load works with.

    Attributes:
        plan: the sizes.
        names: the servers to measure.
        launcher: starts the servers.
        upstream: the registry behind them.
        samples: takes the figures.
        say: tells the person who waits what is going on.
    """

    plan: Plan
    names: Sequence[str]
    launcher: Launcher
    upstream: Upstream
    samples: Samples
    say: Callable[[str], None]

    def order_of(self, turn: int) -> list[str]:
        """Return the servers' names, another one first in each round."""
        return rotated(self.names, turn)

    @contextmanager
    def forgiving(self, what: str) -> Iterator[None]:
        """Turn a client's failure into a remark under the table: the other rows still count."""
        try:
            yield
        except ClientError as error:
            self.say(f"  {what} FAILED: {error}")
            self.samples.remark(f"{what} failed: {error}")


def rotated(items: Sequence[_T], turn: int) -> list[_T]:
    """Return the items, of which there is at least one, another one first in each round."""
    shift = turn % len(items)
    return [*items[shift:], *items[:shift]]
