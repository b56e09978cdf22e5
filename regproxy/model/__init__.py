"""The values that the rest of regproxy speaks in.

Digests, names, routes, ranges, media types, references, errors and units: pure values and the
parsers that make them from what the network sends. Nothing here does I/O or knows of Twisted, so
whoever holds one of these values may rely on it without checking it again.
"""
