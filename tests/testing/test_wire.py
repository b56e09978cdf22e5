"""Tests for regproxy.testing.wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.testing.wire import Framing, MalformedMessage, Message, MessageReader

_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nuntil the end"
)


class _Recorder:
    """A reader and the messages that it read."""

    def __init__(self, unframed: Framing = Framing.CLOSE) -> None:
        self.begun: list[Message] = []
        self.complete: list[Message] = []
        self.expects_body = True
        self.reader = MessageReader(self._begin, self.complete.append, unframed=unframed)

    def _begin(self, message: Message) -> bool:
        self.begun.append(message)
        return self.expects_body


class MessageReaderTests(SynchronousTestCase):
    """Messages are cut where their framing says."""

    @given(st.lists(st.integers(1, len(_STREAM) - 1)).map(sorted))
    def test_any_pieces(self, cuts: list[int]) -> None:
        """However the stream is cut into pieces, the same messages are read."""
        recorder = _Recorder()
        for start, stop in zip([0, *cuts], [*cuts, len(_STREAM)], strict=True):
            recorder.reader.feed(_STREAM[start:stop])
        self.assertEqual(
            [bytes(message.body) for message in recorder.complete], [b"hello", b"hello", b""]
        )
        self.assertEqual(bytes(recorder.begun[3].body), b"until the end")
        self.assertFalse(recorder.begun[3].complete)
        self.assertEqual(recorder.begun[3].headers.getRawHeaders("set-cookie"), ["a", "b"])
        recorder.reader.close()
        self.assertTrue(recorder.begun[3].complete)

    def test_unfinished(self) -> None:
        """The end of the stream does not complete a body that has a framing of its own."""
        recorder = _Recorder()
        recorder.reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
        recorder.reader.close()
        self.assertEqual([message.complete for message in recorder.begun], [False])

    def test_no_body(self) -> None:
        """A length that only tells (after HEAD, in a 304) is not waited for."""
        recorder = _Recorder()
        recorder.expects_body = False
        recorder.reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No\r\n\r\n")
        self.assertEqual(len(recorder.complete), 2)

    def test_requests(self) -> None:
        """A request without framing has no body."""
        recorder = _Recorder(Framing.LENGTH)
        recorder.reader.feed(b"GET / HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        self.assertEqual(
            [message.start_line for message in recorder.complete],
            ["GET / HTTP/1.1", "GET /2 HTTP/1.1"],
        )

    def test_malformed(self) -> None:
        """Broken framing is an error, never a guess."""
        for stream in (
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ):
            with self.subTest(stream=stream):
                self.assertRaises(MalformedMessage, _Recorder().reader.feed, stream)
