"""Names in relayed lists, as the client that asked can use them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.naming import client_path, renames_body, rewrite_body, rewrite_link
from regproxy.model.digest import Digest
from regproxy.model.route import Catalog, Referrers, Route, TagList, WayIn

MIRROR = Route(WayIn.MIRROR, "docker.io", "library/alpine", TagList(), client_repository="alpine")
NAMESPACE = Route(WayIn.NAMESPACE, "corp:5000", "team/app", TagList(), client_repository="team/app")
PREFIX = Route(WayIn.PREFIX, "quay.io", "coreos/etcd", TagList(), "quay.io", "coreos/etcd")
CATALOG = Route(WayIn.PREFIX, "quay.io", "", Catalog(), "quay.io")


class LinkTests(SynchronousTestCase):
    """``Link`` headers (RFC 8288)."""

    def test_each_way_in(self) -> None:
        """The path is the client's own, the query upstream's, with ``ns`` where it was used."""
        upstream = '<https://r.test/v2/x/tags/list?n=1&last=b%2Bc>; rel="next"'
        for route, target in (
            (MIRROR, "/v2/alpine/tags/list?n=1&last=b%2Bc"),
            (NAMESPACE, "/v2/team/app/tags/list?n=1&last=b%2Bc&ns=corp%3A5000"),
            (PREFIX, "/v2/quay.io/coreos/etcd/tags/list?n=1&last=b%2Bc"),
            (CATALOG, "/v2/quay.io/_catalog?n=1&last=b%2Bc"),
        ):
            self.assertEqual(rewrite_link(upstream, route), f'<{target}>; rel="next"')

    def test_without_query(self) -> None:
        """A link without a query still finds its registry."""
        self.assertEqual(
            rewrite_link("</v2/x>; rel=next", NAMESPACE),
            "</v2/team/app/tags/list?ns=corp%3A5000>; rel=next",
        )
        self.assertEqual(rewrite_link("<>", MIRROR), "</v2/alpine/tags/list>")

    def test_several(self) -> None:
        """Several links in one header, with commas in quoted parameters, stay several."""
        value = '</a?n=1>; rel="next"; title="x, y", </b?n=2>; rel="prev"'
        self.assertEqual(
            rewrite_link(value, MIRROR),
            '</v2/alpine/tags/list?n=1>; rel="next"; title="x, y", '
            '</v2/alpine/tags/list?n=2>; rel="prev"',
        )

    @given(st.text(alphabet='<>;,="\\ \t?&abc/:[]', max_size=200))
    def test_anything(self, value: str) -> None:
        """Whatever upstream sends, every target in the result is a path of the client's."""
        for link in rewrite_link(value, MIRROR).split("<")[1:]:
            if not link.startswith("/v2/alpine/tags/list"):
                # Within a quoted parameter anything may stand.
                self.assertIn('"', value)


class BodyTests(SynchronousTestCase):
    """Lists through a path prefix."""

    def test_which(self) -> None:
        """Only lists that name repositories, and only for clients with a prefix."""
        self.assertTrue(renames_body(PREFIX))
        self.assertTrue(renames_body(CATALOG))
        self.assertFalse(renames_body(MIRROR))
        self.assertFalse(renames_body(NAMESPACE))
        referrers = Route(WayIn.PREFIX, "quay.io", "a/b", Referrers(Digest.of(b"")), "quay.io")
        self.assertFalse(renames_body(referrers))

    def test_names(self) -> None:
        """Names get the prefix, and everything else stays."""
        tags = rewrite_body(b'{"name":"coreos/etcd","tags":["a"],"x":1}', PREFIX)
        self.assertEqual(json.loads(tags), {"name": "quay.io/coreos/etcd", "tags": ["a"], "x": 1})
        catalog = rewrite_body(b'{"repositories":["a/b",1,null]}', CATALOG)
        self.assertEqual(json.loads(catalog), {"repositories": ["quay.io/a/b", 1, None]})

    def test_long(self) -> None:
        """Beyond 1 MiB a list of tags still gets its name, and a catalog stays as it is."""
        tags = [f"tag-{number}" for number in range(120_000)]
        for name in ('"name" :"coreos/etcd"', '"name":"\\\\1"'):
            body = json.dumps({"manifest": {"x": {"tag": ["name"]}}, "@": 0, "tags": tags})
            body = body.replace('"@": 0', name)
            said = json.loads(body)
            if "etcd" in name:
                said["name"] = "quay.io/coreos/etcd"
            self.assertEqual(json.loads(rewrite_body(body.encode(), PREFIX)), said)
        catalog = json.dumps({"repositories": tags}).encode()
        self.assertIs(rewrite_body(catalog, CATALOG), catalog)

    def test_not_a_list(self) -> None:
        """What is no such list is passed on as it came."""
        for body in (b"", b"<html>", b"[]", b"\xff", b'{"name":1}', b"[" * 100_000):
            self.assertEqual(rewrite_body(body, PREFIX), body)
            self.assertEqual(rewrite_body(body, CATALOG), body)

    def test_paths(self) -> None:
        """The client's own path of each list."""
        digest = Digest.of(b"")
        route = Route(WayIn.PREFIX, "quay.io", "a/b", Referrers(digest), "quay.io", "a/b")
        self.assertEqual(client_path(route), f"/v2/quay.io/a/b/referrers/{digest}")
        self.assertEqual(client_path(MIRROR), "/v2/alpine/tags/list")
