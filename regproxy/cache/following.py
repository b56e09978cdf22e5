"""Following a part that another process fills."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from regproxy.cache.content import OpenFile
from regproxy.cache.part_map import PartState, Progress
from regproxy.cache.store import Store
from regproxy.model.digest import Digest
from regproxy.worker import Worker

_STEP = 0.02
"""Seconds between two looks."""


async def follow(
    digest: Digest,
    store: Store,
    disk: Worker,
    clock: IReactorTime,
    report: Callable[[OpenFile, Progress], None],
) -> None:
    """Reports how far the part is until it is verified, or its owner has given up or died.

    Args:
        digest: Which part.
        store: Where it is.
        disk: Looks at it.
        clock: Times the looks.
        report: Told the part's file, of which it may take a share, and how far it is good.

    Raises:
        OSError: It cannot be looked at.
    """
    view = await disk(store.view_part, digest)
    try:
        while view is not None:
            progress = await disk(view.progress)
            if progress is None or progress.state is PartState.GIVEN_UP:
                return
            report(view.file, progress)
            if progress.state is PartState.VERIFIED:
                return
            await deferLater(clock, _STEP, lambda: None)
    finally:
        if view is not None:
            await disk(view.close)
