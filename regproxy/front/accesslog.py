"""The access log: one line a request, on the real standard output, without ever blocking."""

from __future__ import annotations

import json
import os
import re
import select
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.worker import Worker

_FLUSH_SECONDS = 0.05
_BACKLOG_LIMIT = 1024 * 1024
"""Characters kept while the reader of the log is stalled; lines beyond are lost and counted."""

_LOOK_UP_MILLISECONDS = 100
"""How often a thread that waits for the reader of the log looks whether it still should."""

_PLAIN = re.compile(r"[!#-<>-~]+\Z")

_log = Logger()


@define
class Entry:
    """What is said of one request.

    Attributes:
        method: As the client sent it.
        client: The client's address.
        way: The way in; empty when the request meant no registry.
        registry: The registry's canonical name.
        repository: The repository.
        reference: Tag, digest, or the path of a request that has neither.
        outcome: HIT, JOIN, MISS, REVALIDATED, STALE or RELAY; empty when none applies.
        status: The status code; 0 when the client left before there was one.
        sent: Bytes of the body, or of a tunnel, that were sent.
        received: Bytes that the client sent in a body or a tunnel; left out when there are none.
        seconds: From the request's end to the answer's end.
        note: Why the answer was cut short, empty if it was not.
    """

    method: str = ""
    client: str = ""
    way: str = ""
    registry: str = ""
    repository: str = ""
    reference: str = ""
    outcome: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    note: str = ""


def _fields(entry: Entry, now: float) -> dict[str, str | int | float]:
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    fields: dict[str, str | int | float] = {
        "time": time.replace("+00:00", "Z"),
        "cache": entry.outcome or "-",
        "status": entry.status,
        "method": entry.method or "-",
        "way": entry.way or "-",
        "registry": entry.registry or "-",
        "repository": entry.repository or "-",
        "reference": entry.reference or "-",
        "bytes": entry.sent,
        "received": entry.received,
        "seconds": round(entry.seconds, 4),
        "client": entry.client or "-",
    }
    if not entry.received:
        del fields["received"]
    if entry.note:
        fields["note"] = entry.note
    return fields


def format_logfmt(entry: Entry, now: float) -> str:
    """*entry* as key=value pairs on one line; values that are no plain word are quoted.

    Args:
        entry: The request.
        now: Seconds since the epoch.
    """
    pairs = []
    for key, value in _fields(entry, now).items():
        text = value if isinstance(value, str) else f"{value}"
        pairs.append(f"{key}={text if _PLAIN.match(text) else json.dumps(text)}")
    return " ".join(pairs) + "\n"


def format_json(entry: Entry, now: float) -> str:
    """*entry* as a JSON object on one line.

    Args:
        entry: The request.
        now: Seconds since the epoch.
    """
    return json.dumps(_fields(entry, now)) + "\n"


@define
class AccessLog:
    """Collects lines and writes them in a thread, a batch at a time.

    Whoever reads the log may stall: then lines are lost and counted, and nobody waits.

    Attributes:
        clock: Stamps lines and times batches.
        worker: Runs the writes, which may block for as long as the reader likes.
        descriptor: Where the lines go.
        line: Writes one; `format_logfmt` or `format_json`.
    """

    clock: IReactorTime
    worker: Worker
    descriptor: int
    line: Callable[[Entry, float], str] = format_logfmt
    lost: int = field(default=0, init=False)
    _lines: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _writing: Deferred[None] | None = field(default=None, init=False)
    _in_trouble: bool = field(default=False, init=False)
    _given_up: threading.Event = field(factory=threading.Event, init=False)

    def add(self, entry: Entry) -> None:
        """Takes one request; its line is written within 50 ms unless the reader is stalled."""
        if self._size >= _BACKLOG_LIMIT:
            self.lost += 1
            return
        line = self.line(entry, self.clock.seconds())
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None and self._writing is None:
            self._timer = self.clock.callLater(_FLUSH_SECONDS, self._flush)

    def close(self, patience: float = 1.0) -> Deferred[None]:
        """Writes what is there.

        Args:
            patience: Seconds that a stalled reader is waited for; then its lines are lost.
        """
        done: Deferred[None] = Deferred()

        def next_batch(_: object = None) -> None:
            if done.called:
                return
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._flush()
            if self._writing is None:
                done.callback(None)
            else:
                self._writing.addBoth(next_batch)

        def give_up(_: Failure) -> None:
            self._given_up.set()
            _log.warn("access log: the last lines are lost, their reader is stalled")

        next_batch()
        return done.addTimeout(patience, self.clock).addErrback(give_up)

    def _flush(self) -> None:
        self._timer = None
        if not self._lines or self._writing is not None:
            return
        batch = "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        self._size = 0
        if self.lost:
            _log.warn("access log: {lost} lines lost, its reader was stalled", lost=self.lost)
            self.lost = 0
        self._writing = writing = self.worker(_write_all, self.descriptor, batch, self._given_up)
        writing.addBoth(self._written)

    def _written(self, result: Failure | None) -> None:
        self._writing = None
        if isinstance(result, Failure) and not self._in_trouble:
            _log.warn("access log: lines are lost: {error}", error=result.value)
        self._in_trouble = isinstance(result, Failure)
        if self._lines:
            self._timer = self.clock.callLater(_FLUSH_SECONDS, self._flush)


def _write_all(descriptor: int, data: bytes, given_up: threading.Event) -> None:
    """Writes everything, however long it takes, unless it is given up. Blocks.

    Raises:
        OSError: Not everything is written.
    """
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    view = memoryview(data)
    while view:
        if ready.poll(_LOOK_UP_MILLISECONDS):
            # So many bytes a pipe takes without blocking once it is ready (POSIX).
            view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
        elif given_up.is_set():
            raise TimeoutError("their reader is stalled")
