"""A caching proxy for container registries, as a Twisted service."""

__version__ = "0.1.0"
