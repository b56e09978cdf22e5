"""Tests for regproxy.upstream.redirects, and for redirects as they are followed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.errors import RegistryError
from regproxy.testing import Fault
from regproxy.upstream.redirects import MAX_HOPS, redirect_target, same_origin
from tests.upstream.case import DATA, REGISTRY, REPOSITORY, STORAGE, UpstreamCase

HERE = "https://registry.test/v2/a/blobs/x?page=1"
SIGNED = (
    "https://storage.test:8443/a%2Fb/./c/../%7euser/x+y;v=1"
    "?X-Sig=%2f%2F+a%20b&empty=&flag&again=1&again=2&tilde=~%7E"
)


class TargetTests(SynchronousTestCase):
    """Where a Location leads."""

    def test_absolute_is_exact(self) -> None:
        """Nothing of an absolute URL is normalised: its signature covers every byte."""
        for location in (SIGNED, "https://[2001:db8::5]:5000/x?a=", "HTTPS://Storage.TEST/x"):
            self.assertEqual(redirect_target(HERE, location), location)

    def test_relative(self) -> None:
        """Relative references are resolved against the URL that answered (RFC 3986)."""
        for location, target in [
            ("/other?q=%2F+", "https://registry.test/other?q=%2F+"),
            ("y", "https://registry.test/v2/a/blobs/y"),
            ("../y", "https://registry.test/v2/a/y"),
            ("?page=2&empty=", "https://registry.test/v2/a/blobs/x?page=2&empty="),
            ("//storage.test/y", "https://storage.test/y"),
            ("/a//b", "https://registry.test/a//b"),
        ]:
            self.assertEqual(redirect_target(HERE, location), target)

    def test_fragment(self) -> None:
        """A fragment is for user agents and is never sent."""
        self.assertEqual(redirect_target(HERE, "https://s.test/x#y?z"), "https://s.test/x")

    def test_to_https(self) -> None:
        """Plain http may lead to https, and to plain http."""
        for location in ("https://s.test/", "http://s.test/"):
            self.assertEqual(redirect_target("http://registry.test/", location), location)

    def assert_refused(self, location: str, why: str) -> None:
        """Following *location* is a 502 that says *why* and quotes none of it."""
        error = self.assertRaises(RegistryError, redirect_target, HERE, location)
        self.assertEqual(error.status, 502)
        self.assertIn(why, error.message)
        self.assertTrue(error.message.startswith("registry.test "), error.message)
        self.assertTrue(error.message.isascii() and error.message.isprintable())

    def test_downgrade(self) -> None:
        """Encryption is never left for plain http, however it is spelt."""
        for location in ("http://s.test/", "HTTP://s.test/", "http://registry.test/"):
            self.assert_refused(location, "plain http")

    def test_schemes(self) -> None:
        """Only http and https are followed, and they need a host."""
        for location in (
            "ftp://s.test/x",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:,x",
            "https:/x",
            "https:x",
            "https:///x",
            "https://:443/x",
            "sha256:abc",
        ):
            self.assert_refused(location, "not http or https")

    def test_user_names(self) -> None:
        """A user name, even an empty one or one that poses as the host, is refused."""
        for location in (
            "https://user@s.test/",
            "https://user:secret@s.test/",
            "https://@s.test/",
            "https://registry.test@evil.test/",
            "//user@s.test/",
            "https://registry.test\\@evil.test/",
        ):
            self.assert_refused(location, "user name")

    def test_no_url(self) -> None:
        """Control characters, blanks, bytes beyond ASCII and broken hosts or ports are refused."""
        for location in (
            "",
            "https://s.test/a b",
            "https://s.test/\r\nX: y",
            "https://s.test/\t",
            "https://s.test/\x7f",
            "https://s.test/\x00",
            "https://s.test/é",
            "https://s.test/\ufffd",
            "https://[::1/",
            "https://s.test:port/",
            "https://s.test:65536/",
            "https://s.test:-1/",
            f"https://{'s' * 10_000}.test/",
        ):
            self.assert_refused(location, "what is no URL")


class OriginTests(SynchronousTestCase):
    """Whether a credential may be sent along."""

    def test_same(self) -> None:
        """Paths, the spelling of the host and the scheme's own port make no difference."""
        for other in (
            "https://registry.test/other?x",
            "https://registry.test:443/",
            "HTTPS://REGISTRY.test/",
        ):
            self.assertTrue(same_origin(REGISTRY, other), other)

    def test_other(self) -> None:
        """Another scheme, host or port is another origin."""
        for other in (
            "http://registry.test/",
            "http://registry.test:443/",
            "https://registry.test:5000/",
            "https://registry.test:0/",
            "https://registry.test./",
            "https://a.registry.test/",
            "https://registry.test.evil.test/",
        ):
            self.assertFalse(same_origin(REGISTRY, other), other)


class FollowTests(UpstreamCase):
    """Redirects as requests follow them."""

    def redirect(self, url: str, location: str, status: int = 307, body: bytes = b"moved") -> None:
        """Lets *url* lead to *location*."""
        self.scripted.add_page(url, body, status=status, headers={"Location": location})

    def test_statuses(self) -> None:
        """The five redirects are followed with the same method, and their bodies let go."""
        for status in (301, 302, 303, 307, 308):
            self.scripted.redirect_blobs(REGISTRY, STORAGE, status)
            answer = self.get_blob()
            self.assertTrue(answer.elsewhere)
            self.assertEqual((self.read(answer), self.last.method), (DATA, "GET"))
            size = self.result(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline()))
            self.assertEqual((size, self.last.method), (len(DATA), "HEAD"))
        self.assert_nothing_left()

    def test_no_redirect(self) -> None:
        """300, 304, and a redirect to nowhere are answers: what upstream cannot mean is 502."""
        for status, headers in [(300, {"Location": "/x"}), (302, {}), (304, {"Location": "/x"})]:
            self.scripted.script(Fault(status=status, headers=headers))
            error = self.blob_refused()
            self.assertEqual((error.status, len(self.scripted.requests)), (502, 1))
            self.scripted.requests.clear()
        self.assert_nothing_left()

    def test_request_headers(self) -> None:
        """A range is asked for again at every hop; a length or credential of hop one is not."""
        self.scripted.redirect_blobs(REGISTRY, STORAGE)
        answer = self.get_blob(1000)
        self.assertEqual(self.read(answer), DATA[1000:])
        self.assertEqual(self.last.header("Range"), "bytes=1000-")

    def test_exact(self) -> None:
        """A signed URL is asked for byte for byte."""
        self.redirect(REGISTRY + self.blob, SIGNED)
        self.scripted.add_page(SIGNED.partition("?")[0], DATA)
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.assertEqual(self.urls[-1], SIGNED)

    def test_five_hops(self) -> None:
        """Five redirects are followed, the sixth is refused; a loop is but many hops."""
        url = REGISTRY + self.blob
        for hop in range(MAX_HOPS):
            self.redirect(url, f"/hop{hop}")
            url = f"{REGISTRY}/hop{hop}"
        self.scripted.add_page(url, DATA)
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.scripted.requests.clear()
        self.redirect(url, self.blob)
        error = self.blob_refused()
        self.assertEqual(error.status, 502)
        self.assertIn("more than 5 redirects", error.message)
        self.assertEqual(len(self.scripted.requests), MAX_HOPS + 1)
        self.assert_nothing_left()

    def test_refused_location(self) -> None:
        """A Location that may not be followed is 502, and the redirect's body is let go."""
        for location in ("http://storage.test/x", "https://u@storage.test/", "https://x/\xe9", ""):
            self.redirect(REGISTRY + self.blob, location, body=b"x" * 10_000)
            self.assertEqual(self.blob_refused().status, 502, location)
        self.assertEqual({request.url for request in self.scripted.requests}, {self.urls[0]})
        self.assert_nothing_left()

    def test_impossible_host(self) -> None:
        """A host name that no DNS knows how to write is 502, too."""
        self.redirect(REGISTRY + self.blob, "https://a..b/")
        self.assertEqual(self.blob_refused().status, 502)

    def test_huge_body(self) -> None:
        """The body of a redirect is not read on and on; its connection is dropped instead."""
        self.redirect(REGISTRY + self.blob, f"{STORAGE}/x", body=b"x" * 10_000_000)
        self.scripted.add_page(f"{STORAGE}/x", DATA)
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.assertTrue(self.scripted.requests[0].aborted)
        self.assertLess(self.scripted.requests[0].sent, 300_000)
        self.assert_nothing_left()

    def test_silent_body(self) -> None:
        """The body of a redirect that never ends holds nothing up, nor a connection for long."""
        self.redirect(REGISTRY + self.blob, f"{STORAGE}/x", body=b"x" * 100)
        self.scripted.add_page(f"{STORAGE}/x", DATA)
        self.scripted.hold(self.blob, 10)
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.clock.pump([1] * 6)
        self.assert_nothing_left()


class CredentialTests(UpstreamCase):
    """What a redirect takes along."""

    def credentials(self, *locations: str) -> list[str | None]:
        """The Authorization at each hop of a request that brings one."""
        url = f"{REGISTRY}/v2/"
        for location in locations:
            self.scripted.add_page(url, b"", status=307, headers={"Location": location})
            url = location
        self.scripted.add_page(url, b"{}")
        self.scripted.requests.clear()
        asking = self.upstream.relay("GET", "/v2/", {}, "", "Basic c2VjcmV0", self.deadline())
        self.assertEqual(self.read(self.result(asking)), b"{}")
        return [request.header("Authorization") for request in self.scripted.requests]

    def test_within_origin(self) -> None:
        """Within the registry's origin a credential is sent along."""
        for target in (f"{REGISTRY}/other", "https://REGISTRY.test:443/other"):
            self.scripted.add_page(f"{REGISTRY}/other", b"{}")
            self.assertEqual(self.credentials(target), ["Basic c2VjcmV0"] * 2)

    def test_other_origin(self) -> None:
        """Another host or port never sees it."""
        for target in (f"{STORAGE}/x", "https://registry.test:5000/x", "https://a.registry.test/x"):
            self.assertEqual(self.credentials(target), ["Basic c2VjcmV0", None])

    def test_other_scheme(self) -> None:
        """The same host on https is another origin than on http."""
        self.upstream = self.make_upstream("http://registry.test")
        self.scripted.add_page(
            "http://registry.test/v2/",
            b"",
            status=301,
            headers={"Location": "https://registry.test/v2/"},
        )
        self.scripted.add_page("https://registry.test/v2/", b"{}")
        asking = self.upstream.relay("GET", "/v2/", {}, "", "Bearer t", self.deadline())
        self.assertEqual(self.read(self.result(asking)), b"{}")
        self.assertEqual(
            [request.header("Authorization") for request in self.scripted.requests],
            ["Bearer t", None],
        )

    def test_coming_back(self) -> None:
        """Back at the registry it is not sent: another host chose the path there."""
        hops = self.credentials(f"{STORAGE}/x", f"{REGISTRY}/back", f"{REGISTRY}/on")
        self.assertEqual(hops, ["Basic c2VjcmV0", None, None, None])

    def test_challenge_on_the_way_back(self) -> None:
        """A challenge over there is storage's trouble, and gets no token."""
        self.scripted.require_token(REGISTRY)
        self.scripted.add_page(f"{STORAGE}/x", b"", status=307, headers={"Location": REGISTRY})
        self.scripted.add_page(f"{REGISTRY}/", b"", status=401)
        self.scripted.add_page(
            REGISTRY + self.blob, b"", status=307, headers={"Location": f"{STORAGE}/x"}
        )
        self.assertEqual(self.blob_refused().status, 502)
        self.assertEqual(self.scripted.count("GET", "/token"), 0)

    def test_token(self) -> None:
        """A token of the proxy's own stays with the registry as well."""
        self.scripted.require_token(REGISTRY)
        self.scripted.redirect_blobs(REGISTRY, STORAGE)
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.assertEqual(
            [request.header("Authorization") for request in self.scripted.requests],
            [None, None, "Bearer token-1", None],
        )
