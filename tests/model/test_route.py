"""Tests for :mod:`regproxy.model.route`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.digest import Digest
from regproxy.model.errors import NotFound, RegistryError
from regproxy.model.names import parse_registry, parse_repository
from regproxy.model.route import (
    Asked,
    Blob,
    Catalog,
    Manifest,
    ManifestByTag,
    Other,
    Reached,
    Referrers,
    RegistryLookup,
    Route,
    TagList,
    Upload,
    VersionCheck,
    WayIn,
    parse_route,
)

DIGEST = Digest.of(b"regproxy")
NAMES = {
    "docker.io": "docker.io",
    "index.docker.io": "docker.io",
    "quay.io": "quay.io",
    "registry.corp:5000": "registry.corp:5000",
    "corp": "registry.corp:5000",
    "localhost:5001": "localhost:5001",
    "[::1]:5000": "[::1]:5000",
}


@frozen
class Registries:
    """A lookup in a table of canonical names and aliases."""

    names: Mapping[str, str] = field(factory=NAMES.copy)
    default_registry: str = "docker.io"

    def find(self, name: str) -> str | None:
        """The canonical name, if the table has it."""
        return self.names.get(name)

    def known(self) -> Sequence[str]:
        """The canonical names, sorted."""
        return sorted(set(self.names.values()))


LOOKUP: RegistryLookup = Registries()


def parsed(target: str) -> Route:
    """The route of a target, with the usual registries."""
    return parse_route(target, LOOKUP)


class RouteTestCase(SynchronousTestCase):
    """Assertions on routes."""

    def refused(self, target: str, status: int, code: str) -> RegistryError:
        """Assert that a target is refused in this way, in a message of bounded length."""
        with self.assertRaises(RegistryError, msg=target[:80]) as caught:
            parsed(target)
        error: RegistryError = caught.exception
        self.assertEqual((error.status, error.code), (status, code), target[:80])
        self.assertLess(len(error.message), 1000)
        self.assertTrue(error.message.isprintable())
        return error

    def not_found(self, target: str) -> None:
        """Assert that a target is 404 because its path means nothing."""
        self.assertIsInstance(self.refused(target, 404, "UNSUPPORTED"), NotFound)


class ShapeTests(RouteTestCase):
    """The end of a path says what is asked for."""

    def test_endpoints(self) -> None:
        """Each endpoint of a repository is one kind of question."""
        shapes: dict[str, Asked] = {
            "manifests/latest": ManifestByTag("latest"),
            "manifests/V1.0_x": ManifestByTag("V1.0_x"),
            f"manifests/{DIGEST}": Manifest(DIGEST),
            f"manifests/sha512:{'0' * 128}": Manifest(Digest("sha512", "0" * 128)),
            f"blobs/{DIGEST}": Blob(DIGEST),
            f"referrers/{DIGEST}": Referrers(DIGEST),
            "tags/list": TagList(),
            "blobs/uploads": Upload(),
            "blobs/uploads/": Upload(),
            "blobs/uploads/8b51e5d0-1": Upload(),
            "blobs/uploads/a_b=.~": Upload(),
            "blobs/uploads/uploads": Upload(),
        }
        for end, asked in shapes.items():
            route = parsed(f"/v2/library/alpine/{end}")
            expected = Route(
                WayIn.MIRROR, "docker.io", "library/alpine", asked, "", "library/alpine", ""
            )
            self.assertEqual(route, expected, end)

    def test_keywords_in_repositories(self) -> None:
        """Paths are read from the right: keywords are good components of a repository."""
        for target, repository, asked in (
            ("manifests/x/manifests/latest", "manifests/x", ManifestByTag("latest")),
            ("a/manifests/manifests/latest", "a/manifests", ManifestByTag("latest")),
            ("a/manifests/latest/manifests/b", "a/manifests/latest", ManifestByTag("b")),
            ("a/blobs/uploads/manifests/b", "a/blobs/uploads", ManifestByTag("b")),
            ("a/blobs/uploads/tags/list", "a/blobs/uploads", TagList()),
            ("tags/list/tags/list", "tags/list", TagList()),
            ("a/manifests/uploads", "a", ManifestByTag("uploads")),
            ("a/tags/manifests/list", "a/tags", ManifestByTag("list")),
            ("a/blobs/blobs/uploads/1", "a/blobs", Upload()),
            (f"a/uploads/blobs/{DIGEST}", "a/uploads", Blob(DIGEST)),
        ):
            route = parsed(f"/v2/{target}?ns=quay.io")
            self.assertEqual((route.repository, route.asked), (repository, asked), target)

    def test_version_check(self) -> None:
        """The base path asks for the version, of the default registry or of a named one."""
        for target, way, registry, prefix in (
            ("/v2/", "mirror", "docker.io", ""),
            ("/v2", "mirror", "docker.io", ""),
            ("/v2?x=1", "mirror", "docker.io", ""),
            ("/v2/?ns=quay.io", "namespace", "quay.io", ""),
            ("/v2/quay.io/", "prefix", "quay.io", "quay.io"),
            ("/v2/quay.io", "prefix", "quay.io", "quay.io"),
            ("/v2/corp/", "prefix", "registry.corp:5000", "corp"),
        ):
            route = parsed(target)
            self.assertEqual(
                (route.way, route.registry, route.prefix, route.asked, route.repository),
                (way, registry, prefix, VersionCheck(), ""),
            )

    def test_catalog(self) -> None:
        """The catalog belongs to a registry and has no repository."""
        self.assertEqual(
            parsed("/v2/_catalog?n=5"), Route(WayIn.MIRROR, "docker.io", "", Catalog(), query="n=5")
        )
        self.assertEqual(
            parsed("/v2/quay.io/_catalog"),
            Route(WayIn.PREFIX, "quay.io", "", Catalog(), prefix="quay.io"),
        )

    def test_outside_the_api(self) -> None:
        """What is not under /v2/, or has no shape there, is not found."""
        for target in (
            "",
            "/",
            "*",
            "?ns=quay.io",
            "/v1/",
            "/V2/",
            "/v20/",
            "//v2/",
            "/./v2/",
            "v2/",
            "/healthz",
            "/%762/",
            "http://quay.io/v2/",
            "/v2//",
            "/v2/a",
            "/v2/a/",
            "/v2/a/b",
            "/v2/a/b/c/",
            "/v2/a/_catalog",
            "/v2/_catalog/",
            "/v2/a/b/_catalog",
            "/v2//_catalog",
            "/v2/a/tags/",
            "/v2/a/tags/all",
            "/v2/a/tags/list/",
            "/v2/a/manifests",
            "/v2/a/manifests/latest/",
            "/v2/a/blobs/uploads/1/2",
            f"/v2/a/blobs/{DIGEST}/",
            "/v2/quay.io//",
            "/v2/../healthz",
        ):
            self.not_found(target)

    def test_malformed_repository(self) -> None:
        """Names by another grammar than OCI's are 400, percent-encoded or not."""
        for name in (
            "",
            "/a",
            "a/",
            "a//b",
            "A/b",
            "a/B",
            "Library/alpine",
            ".",
            "..",
            "../..",
            "a/..",
            "a/../b",
            "a/./b",
            "a/%2e%2e/b",
            "%2e%2e/b",
            "a/%2E./b",
            "a%2Fb/c",
            "a%2fb",
            "quay.io%2Fb",
            "a/b%2F..%2Fc",
            "a%00b",
            "a/%00",
            "a%0d%0ab",
            "a%zzb",
            "a%",
            "a%4",
            "a%252Fb",
            "a/%C3%A9",
            "a/%c0%af",
            "a/%ff",
            "a/\xe9",
            "a b",
            "a/b\n",
            "a/b#c",
            "a\\b",
            "a+b",
            "a@b",
            "a;b",
            "a/_b",
            "a/b:c",
            "a" * 256,
            "x" * 100_000,
            "a/" * 2000 + "a",
            "%61" * 2000,
            "a" * 248,
        ):
            self.refused(f"/v2/{name}/manifests/latest", 400, "NAME_INVALID")

    def test_missing_repository(self) -> None:
        """A question about no repository is 400, behind a prefix too."""
        for target in (
            "/v2/manifests/latest",
            "/v2/tags/list",
            f"/v2/blobs/{DIGEST}",
            "/v2/blobs/uploads/",
            "/v2/quay.io/manifests/latest",
            "/v2/quay.io//manifests/latest",
            "/v2/corp/tags/list",
        ):
            self.refused(target, 400, "NAME_INVALID")

    def test_malformed_tag(self) -> None:
        """A tag by another grammar than OCI's is 400."""
        for tag in ("", "-a", ".a", "..", "a%2Fb", "a+b", "%00", "\xe9", "a" * 129, "a~b", "a%20"):
            self.refused(f"/v2/a/b/manifests/{tag}", 400, "NAME_INVALID")

    def test_malformed_digest(self) -> None:
        """Anything that should be a digest and is none is 400."""
        digits = DIGEST.hex
        for digest in (
            "sha256:",
            "sha256:" + digits[1:],
            "sha256:" + digits.upper(),
            "sha256:" + digits + "0",
            "sha384:" + "0" * 96,
            "sha256:" + digits + ":x",
            "sha256:" + digits + "%00",
            "a:b",
            ":",
            "sha256%3A..",
        ):
            for end in ("manifests", "blobs", "referrers"):
                self.refused(f"/v2/a/b/{end}/{digest}", 400, "DIGEST_INVALID")
        for end in ("blobs/latest", "referrers/latest", "blobs/", f"blobs/{digits}"):
            self.refused(f"/v2/a/b/{end}", 400, "DIGEST_INVALID")

    def test_percent_encoding(self) -> None:
        """An encoded character is the character, decoded once."""
        encoded = str(DIGEST).replace(":", "%3a")
        self.assertEqual(parsed(f"/v2/a/b/blobs/{encoded}").asked, Blob(DIGEST))
        self.assertEqual(
            parsed("/v2/lib%72ary/alpine/%6Danifests/%6Catest"),
            parsed("/v2/library/alpine/manifests/latest"),
        )
        self.assertEqual(parsed("/v2/localhost%3A5001/a/tags/list").prefix, "localhost:5001")


class WayInTests(RouteTestCase):
    """Prefix beats namespace, namespace beats mirror."""

    def test_prefix(self) -> None:
        """A configured registry or alias is taken off the repository and remembered as written."""
        for prefix, registry in {
            "quay.io": "quay.io",
            "Quay.IO": "quay.io",
            "quay.io.": "quay.io",
            "corp": "registry.corp:5000",
            "registry.corp:5000": "registry.corp:5000",
            "localhost:5001": "localhost:5001",
            "[::1]:5000": "[::1]:5000",
            "[0:0::1]:5000": "[::1]:5000",
        }.items():
            route = parsed(f"/v2/{prefix}/coreos/etcd/manifests/v3?ns=docker.io")
            self.assertEqual(
                route,
                Route(
                    WayIn.PREFIX,
                    registry,
                    "coreos/etcd",
                    ManifestByTag("v3"),
                    prefix,
                    "coreos/etcd",
                    "",
                ),
            )

    def test_prefix_once(self) -> None:
        """Only one component is taken off; a registry-like second one is a repository's."""
        route = parsed("/v2/quay.io/quay.io/a/tags/list")
        self.assertEqual((route.registry, route.repository), ("quay.io", "quay.io/a"))

    def test_docker_hub_names(self) -> None:
        """Official images get their library on every way in; the client's spelling is kept."""
        for target, client in (
            ("/v2/alpine/tags/list", "alpine"),
            ("/v2/alpine/tags/list?ns=docker.io", "alpine"),
            ("/v2/library/alpine/tags/list?ns=index.docker.io", "library/alpine"),
            ("/v2/docker.io/alpine/tags/list", "alpine"),
            ("/v2/index.docker.io/library/alpine/tags/list", "library/alpine"),
        ):
            route = parsed(target)
            self.assertEqual(
                (route.registry, route.repository, route.client_repository),
                ("docker.io", "library/alpine", client),
            )
        self.assertEqual(parsed("/v2/quay.io/alpine/tags/list").repository, "alpine")

    def test_namespace(self) -> None:
        """The ns parameter names a registry or alias, in any spelling."""
        for ns, registry in {
            "quay.io": "quay.io",
            "QUAY.io.": "quay.io",
            "corp": "registry.corp:5000",
            "registry.corp%3A5000": "registry.corp:5000",
            "registry.corp:5000": "registry.corp:5000",
            "%5B::1%5D:5000": "[::1]:5000",
        }.items():
            route = parsed(f"/v2/a/b/manifests/c?ns={ns}")
            self.assertEqual(
                (route.way, route.registry, route.repository, route.prefix, route.query),
                (WayIn.NAMESPACE, registry, "a/b", "", ""),
            )

    def test_namespace_with_dotted_repository(self) -> None:
        """Of a registry named by ns, a dotted component is a repository, but not of docker.io."""
        route = parsed("/v2/foo.bar/x/tags/list?ns=quay.io")
        self.assertEqual((route.registry, route.repository), ("quay.io", "foo.bar/x"))
        self.refused("/v2/foo.bar/x/tags/list?ns=docker.io", 404, "NAME_UNKNOWN")
        self.refused("/v2/foo.bar:5/x/tags/list?ns=quay.io", 404, "NAME_UNKNOWN")
        self.refused("/v2/../x/tags/list?ns=quay.io", 400, "NAME_INVALID")

    def test_malformed_namespace(self) -> None:
        """A ns that is no registry's name is 400, a prefix notwithstanding."""
        for ns in (
            "",
            "%",
            "..",
            "a%2Fb",
            "quay.io/",
            "https://quay.io",
            "quay.io%00",
            "quay.io:99999",
            "a_b",
            "-",
            "quay.io%0d%0aX:y",
            "%ff",
            "a%20b",
            "%C3%A9.example",
            "a" * 300,
        ):
            self.refused(f"/v2/a/b/tags/list?ns={ns}", 400, "NAME_INVALID")
            self.refused(f"/v2/quay.io/b/tags/list?x=1&ns={ns}", 400, "NAME_INVALID")
        self.refused("/v2/a/b/tags/list?ns", 400, "NAME_INVALID")

    def test_duplicated_namespace(self) -> None:
        """Two values that differ are 400; one registry in two spellings is fine."""
        self.refused("/v2/a/b/tags/list?ns=quay.io&ns=docker.io", 400, "NAME_INVALID")
        self.refused("/v2/a/b/tags/list?ns=quay.io&%6es=docker.io", 400, "NAME_INVALID")
        self.refused("/v2/a/b/tags/list?ns=quay.io&ns=", 400, "NAME_INVALID")
        route = parsed("/v2/a/b/tags/list?ns=quay.io&ns=Quay.io&n=1&n%73=quay.io")
        self.assertEqual((route.registry, route.query), ("quay.io", "n=1"))

    def test_query(self) -> None:
        """The query stays raw and in order, without ns."""
        for query, kept in {
            "": "",
            "n=10&last=a%2Fb": "n=10&last=a%2Fb",
            "n=10&ns=quay.io&last=a": "n=10&last=a",
            "ns=quay.io": "",
            "nsx=1&ns=quay.io&xns=2": "nsx=1&xns=2",
            "NS=quay.io": "NS=quay.io",
            "a=b?c=d": "a=b?c=d",
            "artifactType=application/vnd.x%2Bjson&%6E%73=quay.io": (
                "artifactType=application/vnd.x%2Bjson"
            ),
        }.items():
            self.assertEqual(parsed(f"/v2/a/b/tags/list?{query}").query, kept)

    def test_malformed_query(self) -> None:
        """Nothing but visible ASCII is passed on, and no fragment."""
        for query in ("a b", "a=\xe9", "a\x00", "a\r\nb", "a#b", "a\x7f"):
            self.refused(f"/v2/a/b/tags/list?{query}", 400, "NAME_INVALID")


class UnknownRegistryTests(RouteTestCase):
    """A registry that is not configured is never looked for elsewhere."""

    def test_unknown(self) -> None:
        """What looks like a registry, or is named in ns, must be configured."""
        for target in (
            "/v2/unknown.example/a/manifests/b",
            "/v2/unknown.example/a/manifests/b?ns=unknown.example",
            "/v2/localhost/a/manifests/b",
            "/v2/localhost:5000/x/manifests/y",
            "/v2/localhost:5000/",
            "/v2/unknown.example/",
            "/v2/unknown.example/_catalog",
            "/v2/127.0.0.1:80/a/manifests/b",
            "/v2/[::2]/a/manifests/b",
            "/v2/quay.io:443/a/manifests/b",
            "/v2/a/b/manifests/c?ns=unknown.example",
            "/v2/?ns=unknown",
            "/v2/unknown.example/manifests/latest",
        ):
            error = self.refused(target, 404, "NAME_UNKNOWN")
            self.assertIn("docker.io, localhost:5001, quay.io, registry.corp:5000", error.message)

    def test_malformed(self) -> None:
        """What only looks like a registry is malformed."""
        for name in ("a..b", ".", "-a.b", "a:b", "a:0", "a.b:", "::", "[::1", "a.b%00", "a._b"):
            self.refused(f"/v2/{name}/x/manifests/y", 400, "NAME_INVALID")

    def test_few_are_listed(self) -> None:
        """At most twenty registries are listed, the others counted."""
        names = {f"r{number:02}.example": f"r{number:02}.example" for number in range(50)}
        lookup = Registries(names, "r00.example")
        with self.assertRaises(RegistryError) as caught:
            parse_route("/v2/x.example/", lookup)
        message = caught.exception.message
        self.assertEqual(message.count(".example"), 21)
        self.assertIn("r19.example and 30 more", message)

    def test_registries_are_not_remembered(self) -> None:
        """Another configuration gives the same target another meaning."""
        target = "/v2/corp/a/manifests/b"
        self.assertEqual(parsed(target).registry, "registry.corp:5000")
        other = Registries({"quay.io": "quay.io", "docker.io": "docker.io"}, "quay.io")
        route = parse_route(target, other)
        self.assertEqual((route.registry, route.repository), ("quay.io", "corp/a"))
        self.assertEqual(parsed(target).registry, "registry.corp:5000")


COMPONENTS = st.one_of(
    st.sampled_from(
        ["manifests", "blobs", "tags", "list", "uploads", "referrers", "_catalog", "", ".", ".."]
    ),
    st.sampled_from([*NAMES, "unknown.example", "latest", str(DIGEST), "a%2Fb", "%00", "A", "%"]),
    st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)*", fullmatch=True),
    st.text(max_size=8),
)
REPOSITORIES = st.lists(
    st.from_regex(r"[a-z0-9]{1,9}((_|-)[a-z0-9]{1,9})?", fullmatch=True), min_size=2, max_size=5
).map("/".join)


class PropertyTests(RouteTestCase):
    """Whatever comes in, a route is valid or the request refused."""

    @given(st.lists(COMPONENTS, max_size=7), st.one_of(st.none(), st.text(max_size=20)))
    @example(["", "", ""], None)
    def test_any_target(self, components: list[str], query: str | None) -> None:
        """A route holds only names that pass their own grammar, or there is a 400 or 404."""
        target = "/v2/" + "/".join(components) + ("" if query is None else f"?{query}")
        try:
            route = parsed(target)
        except RegistryError as error:
            self.assertIn(error.status, {400, 404})
            return
        self.assertEqual(LOOKUP.find(route.registry), route.registry)
        if isinstance(route.asked, VersionCheck | Catalog):
            self.assertEqual((route.repository, route.client_repository), ("", ""))
        else:
            self.assertEqual(parse_repository(route.repository), route.repository)
            self.assertEqual(parse_repository(route.client_repository), route.client_repository)
        self.assertEqual(bool(route.prefix), route.way is WayIn.PREFIX)
        if route.prefix not in NAMES and route.prefix:
            self.assertEqual(LOOKUP.find(parse_registry(route.prefix)), route.registry)
        self.assertTrue(route.query.isascii() and route.query.isprintable())

    @given(st.text(max_size=60))
    def test_any_text(self, target: str) -> None:
        """Arbitrary targets outside /v2/ are not found."""
        if not target.startswith("/v2"):
            self.not_found(target)

    @given(
        REPOSITORIES,
        st.sampled_from(sorted(set(NAMES.values()))),
        st.sampled_from(
            ["manifests/latest", f"manifests/{DIGEST}", f"blobs/{DIGEST}", "tags/list"]
        ),
    )
    def test_ways_agree(self, repository: str, registry: str, end: str) -> None:
        """Prefix and namespace mean the same, percent-encoded or not."""
        if repository.partition("/")[0] in {*NAMES, "localhost"}:
            return
        by_namespace = parsed(f"/v2/{repository}/{end}?ns={registry}")
        by_prefix = parsed(f"/v2/{quote(registry, safe='')}/{repository}/{end}")
        for route in (by_namespace, by_prefix):
            self.assertEqual(
                (route.registry, route.repository, route.asked),
                (registry, repository, by_namespace.asked),
            )


class ReachedTests(RouteTestCase):
    """Registries that clients reach by their host."""

    def reach(self, target: str, registry: str = "quay.io") -> Route:
        """The route of a target at an intercepted host."""
        return parse_route(target, LOOKUP, Reached(WayIn.INTERCEPTION, registry))

    def test_own_paths(self) -> None:
        """The path is the registry's own, whatever it starts with, and ns says nothing."""
        for name in ("coreos/etcd", "docker.io/library/alpine", "corp/x", "a.b/c"):
            route = self.reach(f"/v2/{name}/tags/list?n=1&ns=docker.io")
            self.assertEqual(
                route,
                Route(WayIn.INTERCEPTION, "quay.io", name, TagList(), "", name, "n=1"),
            )
        route = self.reach("/v2/alpine/tags/list", "docker.io")
        self.assertEqual((route.repository, route.client_repository), ("library/alpine", "alpine"))
        self.assertEqual(self.reach("/v2/").asked, VersionCheck())
        self.assertEqual(self.reach("/v2/_catalog?n=1").asked, Catalog())

    def test_other(self) -> None:
        """What is none of the API is the host's own business: its pages, its tokens."""
        for target in (
            "/",
            "/repository/coreos/etcd?tab=tags",
            "/v2/auth?scope=repository:x:pull",
            "/v2/token",
            "/v1/search?q=etcd",
            "/api/v1/user/\xe9%zz",
            "/v2x/a",
        ):
            route = self.reach(target)
            expected = Route(WayIn.INTERCEPTION, "quay.io", "", Other())
            self.assertEqual(route, expected)

    def test_refused(self) -> None:
        """What is malformed, or of the first version of the API, is nobody's business."""
        for target, status in (
            ("/v1/", 404),
            ("/v1/_ping", 404),
            ("/v1/search/x", 404),
            ("/v2/a/b", 404),
            ("/v2/quay.io/", 404),
            ("/v2/quay.io/_catalog", 404),
            ("/v2/auth/manifests/UPPER:case", 400),
            ("/v2/A/manifests/x", 400),
            ("/v2/a//blobs/uploads/", 400),
            ("/v2/..%2fa/tags/list", 400),
        ):
            with self.assertRaises(RegistryError, msg=target) as caught:
                self.reach(target)
            self.assertEqual(caught.exception.status, status, target)

    def test_disguised(self) -> None:
        """What a lenient registry would read as the API is refused: it has rules of its own."""
        for path in (
            "/%76%32/x/blobs/uploads/",
            "/v%32/x/manifests/y",
            "/v2%2Fx/blobs/uploads/",
            "/%2576%2532/x/tags/list",
            "//v2/x/blobs/uploads/",
            "/./v2/",
            "/x/../v2/x/manifests/y",
            "/x/%2e%2e/v2/x/manifests/y",
            "/x\\..\\v2/",
            "/V2/x/manifests/y",
            "/v2;a=b/x/manifests/y",
            "/%20v2/x",
            "/%2525252576%32/",
            "//v1/repositories",
            "/a/../v1/search",
        ):
            with self.assertRaises(RegistryError, msg=path) as caught:
                self.reach(path)
            self.assertEqual(caught.exception.status, 400, path)
        for path in ("/api/v2/x", "/v22/x", "/repository/v2", "/..v2/", "/a%20b", "/v2.html"):
            self.assertEqual(self.reach(path).asked, Other())

    def test_search(self) -> None:
        """The search, which docker asks its mirror for as well, is the default registry's."""
        for target in ("/v1/search", "/v1/search?q=etcd&n=25"):
            route = parsed(target)
            self.assertEqual(route, Route(WayIn.MIRROR, "docker.io", "", Other()))


class SpeedTests(SynchronousTestCase):
    """Parsing costs microseconds, and an attacker gets no more."""

    def test_hostile_targets(self) -> None:
        """Long targets are refused at once."""
        began = time.perf_counter()
        for target in (
            "/v2/" + "a/" * 100_000,
            "/v2/" + "%2e" * 100_000 + "/manifests/x",
            "/v2/a/b/tags/list?" + "ns=quay.io&" * 20_000 + "ns=",
            "/v2/a/b/tags/list?" + "&" * 200_000 + "ns=",
            "/v2/a/b/tags/list?" + "n%73=x_y&" * 20_000,
            "/v2/a/b/tags/list?ns=" + "a." * 100_000,
            "/v2/a/b/tags/list?ns=" + "a-" * 100_000,
            "/v2/a/b/tags/list?ns=[" + ":" * 100_000 + "]",
            "/v2/a/b/tags/list?ns=" + "1" * 100_000,
            "/v2/" + "a-" * 1000 + "/manifests/x",
            "/v2/" + "a." * 1000 + "/manifests/x",
        ):
            with self.assertRaises(RegistryError):
                parse_route(target, LOOKUP)
        self.assertLess(time.perf_counter() - began, 2)
