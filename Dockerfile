# docker build -t regproxy .
#
# BASE is any Debian-like image that has Python 3.11 or newer with its venv module, and useradd:
# `--build-arg BASE=registry.example/python:3.13-slim`. Both stages use it, so that the virtual
# environment finds the interpreter that it was made with.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# Where pip looks for packages and which CA it trusts there, when not in the usual place.
ARG PIP_INDEX_URL
ARG PIP_CERT
COPY . /src
RUN python3 -m venv /opt/regproxy \
    && /opt/regproxy/bin/pip install --no-cache-dir --disable-pip-version-check /src
# The user that runs regproxy cannot write here, so Twisted's cache of plugins is made now. Twisted
# makes it again unless it is newer than every plugin, and an image keeps whole seconds only.
RUN sleep 2 \
    && /opt/regproxy/bin/python -c \
        'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))' \
    && /opt/regproxy/bin/twistd --help | grep -q '^ *regproxy '

FROM ${BASE}
RUN groupadd --gid 10001 regproxy \
    && useradd --uid 10001 --gid regproxy --home-dir /var/lib/regproxy --no-create-home \
        --shell /usr/sbin/nologin regproxy \
    && install -d -o regproxy -g regproxy -m 0700 /var/cache/regproxy /var/lib/regproxy
COPY --from=build /opt/regproxy /opt/regproxy
COPY docker/regproxy.toml /etc/regproxy/regproxy.toml
ENV PATH=/opt/regproxy/bin:$PATH
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/regproxy
VOLUME ["/var/cache/regproxy", "/var/lib/regproxy"]
EXPOSE 5000 5001
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["python", "-c", "\
from http.client import HTTPConnection as C\n\
c = C('127.0.0.1', 5001, timeout=4)\n\
c.request('GET', '/healthz')\n\
raise SystemExit(c.getresponse().status != 200)"]
# A container's process id is always 1: a pid file left by a killed container would look alive.
ENTRYPOINT ["twistd", "-n", "--pidfile=", "regproxy"]
CMD ["--config", "/etc/regproxy/regproxy.toml"]
