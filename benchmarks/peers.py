"""How each server is configured: regproxy, nginx as a caching reverse proxy, docker-registry.

All three keep their cache in their own directory, fetch from the same upstream over plain HTTP,
and write one access-log line per request into a file.
"""

from __future__ import annotations

import getpass
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.servers import Recipe, Setting

REGPROXY = "regproxy"
REGPROXY_INTERCEPTING = "regproxy-intercepting"
NGINX = "nginx"
NGINX_ONE_WORKER = "nginx-one-worker"
DOCKER_REGISTRY = "docker-registry"
REGISTRY_NAME = "upstream.test"
"""What clients call upstream when they are intercepted on their way to it."""

LINE = "line"
LINE_RATE = 125_000_000
"""Bytes a second of the line to upstream: 1 Gbit/s."""


def regproxy(setting: Setting, *, minted: bool = False) -> Sequence[Sequence[str]]:
    """Return the command that runs regproxy, as one process, from this checkout.

    Args:
        setting: where it runs.
        minted: whether its TLS listener shows certificates of its own authority.
    """
    listeners = [f'[[listeners]]\nendpoint = "tcp:{setting.port}:interface=127.0.0.1"\n']
    if setting.tls_port is not None:
        listeners.append(
            f'[[listeners]]\nendpoint = "tcp:{setting.tls_port}:interface=127.0.0.1"\ntls = true\n'
        )
        if not minted:
            listeners[-1] += (
                f'certificate = "{setting.certificate}"\nprivate_key = "{setting.private_key}"\n'
            )
    file = setting.directory / "regproxy.toml"
    file.write_text(
        f'default_registry = "{REGISTRY_NAME}"\n'
        f'state_directory = "{setting.directory}/state"\n'
        "well_known = false\n\n"
        + "\n".join(listeners)
        + '\n[admin]\nendpoint = "tcp:0:interface=127.0.0.1"\n'
        + f'\n[cache]\ndirectory = "{setting.directory}/cache"\n'
        + f'\n[registries."{REGISTRY_NAME}"]\nupstream = "{setting.upstream}"\n'
    )
    twistd = Path(sys.executable).parent / "twistd"
    return [[str(twistd), "-n", "--pidfile=", "regproxy", "--config", str(file)]]


def nginx(setting: Setting, workers: str = "auto") -> Sequence[Sequence[str]]:
    """Return the command that runs nginx the way docker-registry-proxy configures it.

    The cache lock is on with its age raised to the lock's timeout (docker-registry-proxy leaves
    it at 5 s: its issue 31), blobs and manifests are kept by path. Manifests are cached, which
    docker-registry-proxy leaves to be switched on; sendfile and connections kept open to upstream
    are more than it does.

    Args:
        setting: where it runs.
        workers: how many worker processes; ``auto`` is one per core, as docker-registry-proxy has.
    """
    directory = setting.directory
    tls = ""
    if setting.tls_port is not None:
        tls = f"""
    listen 127.0.0.1:{setting.tls_port} ssl;
    ssl_certificate {setting.certificate};
    ssl_certificate_key {setting.private_key};
    ssl_protocols TLSv1.2 TLSv1.3;"""
    file = directory / "nginx.conf"
    file.write_text(f"""\
daemon off;
user {getpass.getuser()};
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  default_type application/octet-stream;
  access_log {directory}/access.log;
  sendfile on;
  gzip off;
  client_body_temp_path {directory}/body;
  fastcgi_temp_path {directory}/fastcgi;
  proxy_temp_path {directory}/proxy;
  scgi_temp_path {directory}/scgi;
  uwsgi_temp_path {directory}/uwsgi;
  proxy_cache_path {directory}/cache levels=1:2 keys_zone=cache:10m max_size=32g inactive=60d
    use_temp_path=off;
  upstream registry {{ server {setting.upstream.removeprefix("http://")}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{setting.port};{tls}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_buffering on;
    proxy_read_timeout 900s;
    proxy_cache cache;
    proxy_cache_key $uri;
    proxy_cache_lock on;
    proxy_cache_lock_age 880s;
    proxy_cache_lock_timeout 880s;
    proxy_cache_revalidate on;
    proxy_force_ranges on;
    proxy_ignore_client_abort on;
    proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie Vary;
    location /v2/ {{
      proxy_cache_valid 200 206 60d;
      proxy_pass http://registry;
    }}
    location ~ ^/v2/.+/manifests/(?!sha256:) {{
      proxy_cache_valid 200 5m;
      proxy_pass http://registry;
    }}
  }}
}}
""")
    program = shutil.which("nginx") or "/usr/sbin/nginx"  # not on everybody's PATH in Debian
    return [[program, "-e", f"{directory}/error.log", "-c", str(file)]]


def docker_registry(setting: Setting) -> Sequence[Sequence[str]]:
    """Return the commands that run docker-registry in proxy mode.

    It listens on one port: TLS takes a second process with a cache of its own.
    """
    commands = [_registry_command(setting, "plain", setting.port, tls="", proxied=True)]
    if setting.tls_port is not None:
        tls = f"  tls:\n    certificate: {setting.certificate}\n    key: {setting.private_key}\n"
        commands.append(_registry_command(setting, "tls", setting.tls_port, tls, proxied=True))
    return commands


def upstream_registry(setting: Setting) -> Sequence[Sequence[str]]:
    """Return the command that runs the upstream: docker-registry, its log one JSON a line."""
    return [_registry_command(setting, "upstream", setting.port, tls="", proxied=False)]


def line(setting: Setting) -> Sequence[Sequence[str]]:
    """Return the command that runs a line of limited rate to upstream."""
    arguments = (setting.port, setting.upstream.rpartition(":")[2], LINE_RATE)
    return [[sys.executable, "-S", "-m", "benchmarks.line", *map(str, arguments)]]


def _registry_command(
    setting: Setting, name: str, port: int, tls: str, *, proxied: bool
) -> Sequence[str]:
    """Write one docker-registry's configuration, and return the command that runs it."""
    file = setting.directory / f"{name}.yml"
    file.write_text(
        f"""\
version: 0.1
log:
  level: {"warn" if proxied else "info"}
  formatter: json
  accesslog:
    disabled: {"false" if proxied else "true"}
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {setting.directory}/{name}
http:
  addr: 127.0.0.1:{port}
  secret: benchmark
"""
        + tls
        + (f"proxy:\n  remoteurl: {setting.upstream}\n" if proxied else "")
    )
    return ["docker-registry", "serve", str(file)]


SERVERS: Sequence[str] = (REGPROXY, NGINX, DOCKER_REGISTRY)
"""The columns of the table. nginx with one worker appears in rows of its own."""

RECIPES: Mapping[str, Recipe] = {
    REGPROXY: regproxy,
    REGPROXY_INTERCEPTING: partial(regproxy, minted=True),
    NGINX: nginx,
    NGINX_ONE_WORKER: partial(nginx, workers="1"),
    DOCKER_REGISTRY: docker_registry,
    LINE: line,
}
