"""Tells twistd that regproxy is there, and nothing else."""

from twisted.application.service import ServiceMaker

regproxy = ServiceMaker(
    "regproxy", "regproxy.tap", "A caching proxy for container registries.", "regproxy"
)
