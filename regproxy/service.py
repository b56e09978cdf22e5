"""Starting and stopping: the order in which things begin and end, and the threads that they use."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from attrs import define
from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python.threadpool import ThreadPool

from regproxy.cache.index import Index
from regproxy.cache.store import Store
from regproxy.front.accesslog import AccessLog
from regproxy.worker import Worker

_log = Logger()


class RegproxyService(MultiService):
    """Everything that runs; stopped from the listeners inwards."""

    def __init__(self, *, log_to_stderr: bool) -> None:
        """Args:
        log_to_stderr: Whether the application's log goes to stderr, since the access log has
            stdout to itself.
        """
        super().__init__()
        self._log_to_stderr = log_to_stderr

    def privilegedStartService(self) -> None:
        """Binds.

        Raises:
            SystemExit: An address cannot be had; its one line says which and why.
        """
        with _one_line_exit():
            super().privilegedStartService()

    def startService(self) -> None:
        """Opens the cache, as the user that twistd has become, and accepts clients.

        Raises:
            SystemExit: The cache cannot be opened; its one line says why.
        """
        with _one_line_exit():
            super().startService()

    def stopService(self) -> Deferred[None]:
        """Stops what came last first, and each only when the one before is done."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            await maybeDeferred(service.stopService)

    def setServiceParent(self, parent: Any) -> None:
        """Also gives twistd its log observer: this is the one moment at which it can be had."""
        if self._log_to_stderr and parent.getComponent(ILogObserver, None) is None:
            parent.setComponent(ILogObserver, textFileLogObserver(sys.__stderr__ or sys.stderr))
        super().setServiceParent(IServiceCollection(parent))


@contextlib.contextmanager
def _one_line_exit() -> Iterator[None]:
    """Ends the process with one line where a traceback would bury it."""
    try:
        yield
    except (CannotListenError, OSError, sqlite3.Error, ValueError) as error:
        raise SystemExit(f"regproxy: cannot start: {_one_line(error)}") from error


@define
class Threads:
    """The pools in which blocking work runs, each for one kind of it."""

    reactor: Any
    pools: list[ThreadPool]

    def worker(self, name: str, threads: int) -> Worker:
        """A worker with a pool of its own."""
        pool = ThreadPool(0, threads, f"regproxy-{name}")
        self.pools.append(pool)
        return partial(deferToThreadPool, self.reactor, pool)

    def start(self) -> None:
        """Starts all pools."""
        for pool in self.pools:
            pool.start()

    def stop(self) -> None:
        """Stops all pools when their jobs are done."""
        for pool in self.pools:
            pool.stop()


class Preparation(Service):
    """What must be possible before anything is served, tried as the user that twistd became."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        """Args:
        steps: Called at the start; an OSError or ValueError of one ends it.
        """
        self._steps = steps

    def startService(self) -> None:
        """Goes through the steps."""
        super().startService()
        for step in self._steps:
            step()


class CacheService(Service):
    """Opens the cache before the first listener and closes it after the last."""

    def __init__(self, threads: Threads, store: Store, index: Index, access_log: AccessLog) -> None:
        """Args:
        threads: The pools.
        store: Prepared at the start.
        index: Opened at the start.
        access_log: Emptied at the stop.
        """
        self._threads = threads
        self._store = store
        self._index = index
        self._access_log = access_log

    def startService(self) -> None:
        """Prepares the directories, opens the index and starts the pools."""
        super().startService()
        removed = self._store.prepare()
        if removed:
            _log.info("cache: {removed} unfinished parts removed", removed=removed)
        self._index.open()
        self._threads.start()

    def stopService(self) -> Deferred[None]:
        """Writes what is still to be written."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._index.close()
        await self._access_log.close()
        self._threads.stop()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
