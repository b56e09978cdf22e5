"""Tests for the mistakes that :mod:`regproxy.config_file` refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from regproxy.config import TABLES
from regproxy.config_file import ConfigError, known_keys
from tests.test_config_file import FILE, FileTestCase


def toml(value: object) -> str:
    """A value as TOML writes it, on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return str(value).lower()


def document(table: str, key: str, value: str) -> str:
    """A configuration file in which one key has a value."""
    if table == "":
        return f"{key} = {value}"
    if table == "listeners":
        endpoint = "" if key == "endpoint" else 'endpoint = "tcp:0"\n'
        return f"[[listeners]]\n{endpoint}{key} = {value}"
    if table == "registries":
        return f'[registries."registry.corp"]\n{key} = {value}'
    return f"[{table}]\n{key} = {value}"


KEYS = [(table, key) for table, made in TABLES.items() for key in known_keys(made)]

BOOLEAN = "expected true or false"
DIRECTORY = "expected the path of a directory, which need not exist yet"
DURATION = 'expected a duration such as "5m", "1h30m" or "250ms", or a number of seconds'
SIZE = 'expected a size such as "16KiB" or "4MiB", or a number of bytes'
NAME = 'expected a registry name such as "quay.io" or "registry.corp:5000"'
ORIGIN = 'expected a URL of scheme, host and port such as "https://registry.corp:5000"'
ENDPOINT = 'expected an endpoint such as "tcp:5000"'
HOST = 'expected a host or host:port such as "proxy.corp" or "proxy.corp:5000"'
ADDRESS = 'expected an IP address such as "10.1.2.3" or "fd00::5"'
DOMAIN = (
    'expected a domain, an IP address or a network such as "corp.example", "10.1.2.3" or "fd00::/8"'
)
PATTERN = (
    'expected a pattern of host and port such as "example.com:443", "*.example.com:*", '
    '"10.0.0.0/8:22" or "[fd00::5]:443"'
)
TUNNEL = 'expected true, false or an array of patterns such as "example.com:443"'
PROXY = (
    'expected a proxy such as "http://proxy.corp:3128" or '
    '"http://user:password@proxy.corp:3128", or "none"'
)
NOT_HTTP = f"found a URL that does not begin with http://, {PROXY}"
POLICY = 'expected "deny" or "relay"'
PLAIN = "expected a plain endpoint, with tls = true beside it for TLS"
PORT = "expected tcp with a port from 0 to 65535"

# A wrong value for each key, and the message after the key's path.
WRONG: Mapping[tuple[str, str], list[tuple[str, str]]] = {
    ("", "default_registry"): [
        ("5", f"found 5, {NAME}"),
        ('"docker io"', f'found "docker io", {NAME}'),
    ],
    ("", "names"): [('"proxy.corp"', 'found "proxy.corp", expected an array of hosts')],
    ("", "state_directory"): [
        ("true", f"found true, {DIRECTORY}"),
        ('"~/state"', f'found "~/state", {DIRECTORY}, with the home directory spelt out'),
    ],
    ("", "listeners"): [
        ('"tcp:5000"', 'found "tcp:5000", expected one or more [[listeners]] tables'),
        ("{}", "found a table, expected one or more [[listeners]] tables"),
        ("[]", "found an empty array, expected one or more [[listeners]] tables"),
    ],
    ("", "admin"): [("[]", "found an array, expected a table")],
    ("", "cache"): [('"/var/cache"', 'found "/var/cache", expected a table')],
    ("", "registries"): [
        (
            '["quay.io"]',
            'found an array, expected a table for each registry, as [registries."quay.io"]',
        )
    ],
    ("", "proxy"): [
        ("true", f"found true, {PROXY}"),
        (
            '"outgoing.corp:3128"',
            f'{NOT_HTTP} (did you mean "http://outgoing.corp:3128"?)',
        ),
        ('"socks5://me:secret@p"', NOT_HTTP),
        ('"me:secret@p:3128"', NOT_HTTP),
        (
            '"http://me:secret@p:0"',
            f"found a URL without a host, or with a port that is none, {PROXY}",
        ),
        (
            '"http://me:sec/ret@p"',
            f"found a URL with more than user, password, host and port, {PROXY}",
        ),
        (
            '"http://me:sec ret@p"',
            f"found a URL with spaces or other than ASCII characters, {PROXY}",
        ),
    ],
    ("", "ca"): [('"ca.pem"', 'found "ca.pem", expected a table')],
    ("", "connect"): [('"10s"', 'found "10s", expected a table')],
    ("", "access"): [("10", "found 10, expected a table")],
    ("", "timeouts"): [("10", "found 10, expected a table")],
    ("", "limits"): [("2026-01-01", "found a date or time, expected a table")],
    ("", "access_log"): [
        ('"jsn"', 'found "jsn", expected "logfmt" or "json" (did you mean "json"?)'),
        ("1", 'found 1, expected "logfmt" or "json"'),
    ],
    ("", "well_known"): [("0", f"found 0, {BOOLEAN}")],
    ("listeners", "endpoint"): [
        ("5000", f"found 5000, {ENDPOINT}"),
        ('"tcp:70000"', f'found "tcp:70000", {PORT}'),
        (
            '"ssl:443"',
            f'found "ssl:443", {PLAIN} (did you mean "tcp:443"?)',
        ),
    ],
    ("listeners", "tls"): [('"yes"', f'found "yes", {BOOLEAN}'), ("1", f"found 1, {BOOLEAN}")],
    ("listeners", "certificate"): [
        ('"none.pem"', f'found "none.pem": no such file, {FILE}'),
        ('"."', f'found ".": a directory, {FILE}'),
    ],
    ("listeners", "private_key"): [
        ("true", f"found true, {FILE}"),
        ('"none.key"', f'found "none.key": no such file, {FILE}'),
    ],
    ("admin", "endpoint"): [
        ("false", f"found false, {ENDPOINT}"),
        ('"tcp:admin"', f'found "tcp:admin", {PORT}'),
    ],
    ("cache", "directory"): [('""', f'found "", {DIRECTORY}')],
    ("cache", "tag_ttl"): [
        ('"5 minutes"', f'found "5 minutes", {DURATION}'),
        ("-1", f"found -1, {DURATION}"),
        ("true", f"found true, {DURATION}"),
        ('"3651d"', f'found "3651d", {DURATION}, from 0s to 3650d'),
    ],
    ("cache", "stale_if_error"): [("{}", f"found a table, {DURATION}")],
    ("registries", "upstream"): [
        (
            '"https://10.1.2.3/v2/"',
            f'found "https://10.1.2.3/v2/", {ORIGIN} (did you mean "https://10.1.2.3"?)',
        ),
        ('"https://me:secret@registry.corp"', f"found a URL with credentials, {ORIGIN}"),
    ],
    ("registries", "aliases"): [
        ('"corp"', 'found "corp", expected an array of registry names'),
    ],
    ("registries", "ca_file"): [('"ca.pem"', f'found "ca.pem": no such file, {FILE}')],
    ("registries", "client_certificate"): [('"c.pem"', f'found "c.pem": no such file, {FILE}')],
    ("registries", "client_key"): [("5", f"found 5, {FILE}")],
    ("registries", "insecure"): [('"yes"', f'found "yes", {BOOLEAN}')],
    ("registries", "proxy"): [("[]", f"found an array, {PROXY}")],
    ("registries", "allowed_addresses"): [
        ('"10.0.0.1"', 'found "10.0.0.1", expected an array of IP addresses and networks'),
    ],
    ("registries", "tag_ttl"): [('"1y"', f'found "1y", {DURATION}')],
    ("registries", "connections"): [
        ("0", "found 0, expected an integer, from 1 to 10000"),
        ("1.5", "found 1.5, expected an integer"),
        ("true", "found true, expected an integer"),
    ],
    ("registries", "resolve"): [
        ('"10.1.2.3"', 'found "10.1.2.3", expected an array of IP addresses'),
    ],
    ("registries", "push"): [
        ('"rely"', f'found "rely", {POLICY} (did you mean "relay"?)'),
        ("true", f"found true, {POLICY}"),
    ],
    ("registries", "other_requests"): [('"dny"', f'found "dny", {POLICY} (did you mean "deny"?)')],
    ("ca", "certificate"): [('"none.pem"', f'found "none.pem": no such file, {FILE}')],
    ("ca", "private_key"): [("5", f"found 5, {FILE}")],
    ("ca", "permitted_domains"): [
        ('"quay.io"', 'found "quay.io", expected an array of domains, IP addresses and networks'),
    ],
    ("connect", "tunnel"): [
        ('"example.com:443"', f'found "example.com:443", {TUNNEL}'),
        ("1", f"found 1, {TUNNEL}"),
    ],
    ("timeouts", "tunnel_idle"): [("0", f"found 0, {DURATION}, from 1ms to 1d")],
    ("timeouts", "connect"): [("0", f"found 0, {DURATION}, from 1ms to 1d")],
    ("access", "clients"): [
        ('"10.0.0.0/8"', 'found "10.0.0.0/8", expected an array of IP addresses and networks'),
    ],
    ("timeouts", "headers"): [('"2d"', f'found "2d", {DURATION}, from 1ms to 1d')],
    ("timeouts", "silence"): [("inf", f"found inf, {DURATION}")],
    ("timeouts", "write_stall"): [("nan", f"found nan, {DURATION}")],
    ("timeouts", "request_headers"): [('"s"', f'found "s", {DURATION}')],
    ("timeouts", "idle"): [("[75]", f"found an array, {DURATION}")],
    ("timeouts", "revalidate"): [("false", f"found false, {DURATION}")],
    ("timeouts", "drain"): [("1e9", f"found 1000000000.0, {DURATION}, from 0s to 1d")],
    ("limits", "connections"): [
        ('"many"', 'found "many", expected an integer'),
        ("0x" + "f" * 9000, "found a huge integer, expected an integer, from 1 to 1000000"),
    ],
    ("limits", "header_size"): [
        ('"16K"', f'found "16K", {SIZE}'),
        ("16", f"found 16, {SIZE}, from 1KiB to 1MiB"),
    ],
    ("limits", "manifest_size"): [("4.0", f"found 4.0, {SIZE}")],
}


class WrongValueTests(FileTestCase):
    """A wrong value is refused with the key's path, what was found and what was expected."""

    def test_every_key(self) -> None:
        """Each key of each table refuses what it cannot have."""
        self.assertEqual(set(WRONG), set(KEYS))
        for (table, key), cases in WRONG.items():
            path = {
                "": key,
                "listeners": f"listeners[0].{key}",
                "registries": f'registries."registry.corp".{key}',
            }.get(table, f"{table}.{key}")
            for value, message in cases:
                self.assertEqual(self.refusal(document(table, key, value)), f"{path}: {message}")

    def test_in_arrays(self) -> None:
        """The path says which element it is."""
        self.assertEqual(
            self.refusal('[registries."quay.io"]\naliases = ["q", "a b"]'),
            f'registries."quay.io".aliases[1]: found "a b", {NAME}',
        )
        self.assertEqual(
            self.refusal('listeners = [{endpoint = "tcp:0"}, 5]'),
            "listeners[1]: found 5, expected a table",
        )
        for text, message in (
            ('names = ["proxy.corp", "a b"]', f'names[1]: found "a b", {HOST}'),
            (
                '[registries."quay.io"]\nresolve = ["quay.io"]',
                f'registries."quay.io".resolve[0]: found "quay.io", {ADDRESS}',
            ),
            (
                '[ca]\npermitted_domains = ["quay.io", "*.corp"]',
                f'ca.permitted_domains[1]: found "*.corp", {DOMAIN} (did you mean "corp"?)',
            ),
            (
                '[connect]\ntunnel = ["*:443", "b.corp", 5]',
                f'connect.tunnel[1]: found "b.corp", {PATTERN} (did you mean "b.corp:443"?)',
            ),
            ("[connect]\ntunnel = [true]", f"connect.tunnel[0]: found true, {PATTERN}"),
        ):
            self.assertEqual(self.refusal(text), message)

    def test_registry_tables(self) -> None:
        """A registry has a valid name, once, and a table."""
        for text, message in (
            ('[registries."a b"]', f'registries."a b": found "a b", {NAME}'),
            ('registries."quay.io" = 5', 'registries."quay.io": found 5, expected a table'),
            (
                '[registries."quay.io"]\n[registries."QUAY.io"]',
                'registries."QUAY.io": found "quay.io" again, expected each registry once',
            ),
        ):
            self.assertEqual(self.refusal(text), message)

    def test_unquoted_registry(self) -> None:
        """A dot that TOML took for a table within a table is recognised."""
        for text, path, name in (
            ("[registries.docker.io]", "docker", "docker.io"),
            ('[registries.registry.k8s.io]\ntag_ttl = "1h"', "registry", "registry.k8s.io"),
        ):
            self.assertEqual(
                self.refusal(text),
                f"registries.{path}: found a table in the registry's table, expected the "
                f'registry\'s name in quotes (did you mean registries."{name}"?)',
            )

    @settings(deadline=None)
    @given(
        st.sampled_from(KEYS),
        st.recursive(
            st.booleans()
            | st.integers()
            | st.floats()
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
            | st.sampled_from(["docker.io", "quay.io", "tcp:0", "5m", "https://r.corp", "/", "."]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([key for _, key in KEYS] + ["docker.io", "x", "name"])
                    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=6,
        ),
    )
    def test_any_value(self, key: tuple[str, str], value: object) -> None:
        """Any value of any key makes a configuration or one line."""
        try:
            config = self.load(document(*key, toml(value)))
        except ConfigError as error:
            self.assertEqual(str(error).splitlines(), [str(error)])
            self.assertTrue(str(error).isprintable())
            self.assertNotIn("TOML", str(error))
        else:
            self.assertIn(config.default_registry, config.registries)


class UnknownKeyTests(FileTestCase):
    """An unknown key is refused with the keys that there are."""

    def test_misspelt(self) -> None:
        """The nearest key is offered."""
        for text, path, meant in (
            ('default_regstry = "x"', "default_regstry", "default_registry"),
            ("[listener]", "listener", "listeners"),
            ('[cache]\ndirctory = "x"', "cache.dirctory", "directory"),
            ('[registries."docker.io"]\nalias = []', 'registries."docker.io".alias', "aliases"),
            ('[[listeners]]\nendpont = "tcp:5000"', "listeners[0].endpont", "endpoint"),
            ("[timeouts]\nwritestall = 5", "timeouts.writestall", "write_stall"),
            ("[timeouts]\ntunel_idle = 5", "timeouts.tunel_idle", "tunnel_idle"),
            ('name = ["proxy.corp"]', "name", "names"),
            ("[conect]\ntunnel = true", "conect", "connect"),
            ("[connect]\ntunnels = true", "connect.tunnels", "tunnel"),
            ("[ca]\npermited_domain = []", "ca.permited_domain", "permitted_domains"),
            (
                '[registries.r]\nother_request = "deny"',
                "registries.r.other_request",
                "other_requests",
            ),
            ("[registries.r]\nresolv = []", "registries.r.resolv", "resolve"),
            ('[registries.r]\npushes = "relay"', "registries.r.pushes", "push"),
        ):
            message = self.refusal(text)
            self.assertTrue(
                message.startswith(f"{path}: found an unknown key, expected one of "), message
            )
            self.assertTrue(message.endswith(f' (did you mean "{meant}"?)'), message)

    def test_misplaced(self) -> None:
        """A key of another table is offered with its path."""
        for text, meant in (
            ('tag_ttl = "5m"', '"cache.tag_ttl"'),
            ('endpoint = "tcp:5000"', '"listeners[0].endpoint"'),
            ('upstream = "https://x"', 'registries."NAME".upstream'),
            ('[cache]\naccess_log = "json"', '"access_log"'),
            ("tunnel = true", '"connect.tunnel"'),
            ("permitted_domains = []", '"ca.permitted_domains"'),
            ('push = "relay"', 'registries."NAME".push'),
            ('[connect]\nnames = ["proxy.corp"]', '"names"'),
        ):
            message = self.refusal(text)
            self.assertTrue(message.endswith(f" (did you mean {meant}?)"), message)

    def test_nothing_near(self) -> None:
        """Nothing is offered when nothing is near; the message is complete nevertheless."""
        self.assertEqual(
            self.refusal('[cache]\nmax_size = "200GiB"'),
            "cache.max_size: found an unknown key, expected one of directory, tag_ttl, "
            "stale_if_error",
        )

    def test_name_is_no_key(self) -> None:
        """A registry's name stands in the table's header alone."""
        message = self.refusal('[registries."quay.io"]\nname = "quay.io"')
        self.assertTrue(message.startswith('registries."quay.io".name: found an unknown key'))

    def test_strange_keys(self) -> None:
        """A key is quoted where TOML needs it, and cannot break the line."""
        message = self.refusal('"a\\nb c" = 1')
        self.assertTrue(message.startswith('"a\\nb c": found an unknown key'), message)

    def test_before_a_missing_key(self) -> None:
        """A misspelt key that is required is told as misspelt, a missing one as missing."""
        self.assertEqual(
            self.refusal("[[listeners]]\ntls = false"),
            "listeners[0].endpoint: found nothing, expected this key, which is required",
        )
