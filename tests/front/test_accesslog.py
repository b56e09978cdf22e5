"""The access log: a line for every request, whoever reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regproxy.front.accesslog import AccessLog, Entry, format_json, format_logfmt
from regproxy.testing import HeldWorker, ImmediateWorker
from tests.front.proxy import parse_logfmt

ENTRY = Entry(
    method="GET",
    client="192.0.2.7",
    way="namespace",
    registry="docker.io",
    repository="library/alpine",
    reference="latest",
    outcome="MISS",
    status=200,
    sent=123,
    seconds=0.00412,
)


class FormatTests(SynchronousTestCase):
    """How a line is written."""

    def test_logfmt(self) -> None:
        """The documented line."""
        self.assertEqual(
            format_logfmt(ENTRY, 1_795_472_239.123),
            "time=2026-11-23T22:17:19.123Z cache=MISS status=200 method=GET way=namespace "
            "registry=docker.io repository=library/alpine reference=latest bytes=123 "
            "seconds=0.0041 client=192.0.2.7\n",
        )

    def test_json(self) -> None:
        """The same as an object, numbers as numbers."""
        line = format_json(ENTRY, 1_795_472_239.123)
        self.assertEqual(line.count("\n"), 1)
        fields = json.loads(line)
        self.assertEqual(fields["time"], "2026-11-23T22:17:19.123Z")
        self.assertEqual((fields["status"], fields["bytes"]), (200, 123))
        self.assertEqual((fields["cache"], fields["reference"]), ("MISS", "latest"))

    def test_received(self) -> None:
        """What the client sent is said when it sent anything."""
        self.assertEqual(parse_logfmt(format_logfmt(Entry(received=7), 0))["received"], "7")
        self.assertNotIn("received", parse_logfmt(format_logfmt(Entry(), 0)))

    def test_nothing_known(self) -> None:
        """What is not known is a dash, and a note is only there when there is one."""
        fields = parse_logfmt(format_logfmt(Entry(), 0))
        for key in ("cache", "method", "way", "registry", "repository", "reference", "client"):
            self.assertEqual(fields[key], "-")
        self.assertNotIn("note", fields)
        self.assertEqual(
            parse_logfmt(format_logfmt(Entry(note="client left"), 0))["note"], "client left"
        )

    @given(st.text(max_size=50), st.text(max_size=50))
    def test_hostile_values(self, reference: str, method: str) -> None:
        """Whatever a client sends, its line is one line, printable, and reads back as sent."""
        entry = Entry(reference=reference, method=method, client="c")
        for line in (format_logfmt(entry, 0), format_json(entry, 0)):
            self.assertTrue(line.endswith("\n"))
            self.assertTrue(line[:-1].isprintable() and line.isascii(), line)
            read = json.loads(line) if line.startswith("{") else parse_logfmt(line)
            self.assertEqual(read["reference"], reference or "-")
            self.assertEqual(read["method"], method or "-")
            self.assertEqual(read["client"], "c")

    def test_quotes(self) -> None:
        """No value can pretend to be another key."""
        line = format_logfmt(Entry(reference='x" status=200\nstatus=200'), 0)
        self.assertIn('reference="x\\" status=200\\nstatus=200"', line)


class WritingTests(SynchronousTestCase):
    """How lines get out."""

    def setUp(self) -> None:
        """Makes a pipe and a thread that the test holds."""
        self.clock = Clock()
        self.worker = HeldWorker()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, self.writer)
        self.log = AccessLog(self.clock, self.worker, self.writer)

    def read(self) -> list[dict[str, str]]:
        """The lines that came."""
        try:
            text = os.read(self.reader, 1024 * 1024).decode()
        except BlockingIOError:
            return []
        return [parse_logfmt(line) for line in text.splitlines()]

    def test_batches(self) -> None:
        """Lines wait 50 ms for company, and are written in a thread."""
        for status in (200, 404):
            self.log.add(Entry(status=status))
        self.assertEqual(self.worker.held, 0)
        self.clock.advance(0.05)
        self.assertEqual((self.worker.held, self.read()), (1, []))
        self.worker.run_all()
        self.assertEqual([line["status"] for line in self.read()], ["200", "404"])

    def test_later_lines(self) -> None:
        """What comes while a batch is written is written after it."""
        self.log.add(Entry(status=1))
        self.clock.advance(0.05)
        self.log.add(Entry(status=2))
        self.clock.advance(1)
        self.assertEqual(self.worker.held, 1)
        self.worker.run_all()
        self.clock.advance(0.05)
        self.worker.run_all()
        self.assertEqual([line["status"] for line in self.read()], ["1", "2"])

    def test_stalled_reader(self) -> None:
        """Lines beyond the backlog are lost and counted, and nobody waits."""
        self.log.add(Entry())
        self.clock.advance(0.05)
        for _ in range(20_000):
            self.log.add(Entry(reference="r" * 100))
        self.assertGreater(self.log.lost, 1000)
        self.assertEqual(self.worker.held, 1)
        lost = self.log.lost
        null = os.open(os.devnull, os.O_WRONLY)
        self.addCleanup(os.close, null)
        self.log.descriptor = null
        self.worker.run_all()
        self.clock.advance(0.05)
        self.worker.run_all()
        self.assertEqual(self.log.lost, 0)
        self.log.descriptor = self.writer
        self.log.add(Entry(status=9))
        self.clock.advance(0.05)
        self.worker.run_all()
        self.assertEqual([line["status"] for line in self.read()][-1], "9")
        self.assertGreater(lost, 0)

    def test_close(self) -> None:
        """Closing writes what is there, also what came while a batch was being written."""
        self.log.add(Entry(status=1))
        self.clock.advance(0.05)
        self.log.add(Entry(status=2))
        done = self.log.close()
        self.assertNoResult(done)
        self.worker.run_all()
        self.successResultOf(done)
        self.assertEqual([line["status"] for line in self.read()], ["1", "2"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_of_nothing(self) -> None:
        """With nothing to write it is done at once."""
        self.successResultOf(self.log.close())

    def test_close_has_patience(self) -> None:
        """A stalled reader is waited for, but not for ever."""
        self.log.add(Entry())
        done = self.log.close(patience=1.0)
        self.clock.advance(1)
        self.successResultOf(done)
        self.worker.run_all()

    def test_nobody_reads(self) -> None:
        """A reader that is gone costs its lines and nothing else, and is complained of once."""
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        log = AccessLog(self.clock, ImmediateWorker(), writer)
        for _ in range(3):
            log.add(Entry())
            self.clock.advance(0.05)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StalledThreadTests(TestCase):
    """With a real thread and a real pipe that nobody reads."""

    async def test_thread_ends(self) -> None:
        """The thread that waits for the reader ends once it has been given up."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        from twisted.internet import reactor

        jobs: list[Deferred[Any]] = []

        def worker(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            job = deferToThread(function, *args, **kwargs)
            jobs.append(job)
            return job

        log = AccessLog(reactor, worker, writer)
        log.add(Entry())
        await log.close(patience=0.05)
        await jobs[0]
