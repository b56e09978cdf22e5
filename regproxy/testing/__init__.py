"""Fakes for tests: upstreams, clients and workers in memory, on a fake clock.

They open no socket, start no thread and never sleep: time is a `twisted.internet.task.Clock`.
"""

from __future__ import annotations

from regproxy.testing.client import MemoryAnswer, MemoryClient
from regproxy.testing.exchange import BEFORE_HEADERS, Fault, RecordedRequest
from regproxy.testing.registry import TokenRealm
from regproxy.testing.transport import MemoryTransport
from regproxy.testing.upstream import ScriptedUpstream
from regproxy.testing.wire import Framing
from regproxy.testing.worker import HeldWorker, ImmediateWorker

__all__ = [
    "BEFORE_HEADERS",
    "Fault",
    "Framing",
    "HeldWorker",
    "ImmediateWorker",
    "MemoryAnswer",
    "MemoryClient",
    "MemoryTransport",
    "RecordedRequest",
    "ScriptedUpstream",
    "TokenRealm",
]
