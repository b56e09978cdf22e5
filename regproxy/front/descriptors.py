"""Descriptors: the process takes what it is allowed, and clients leave some of them to the rest."""

from __future__ import annotations

from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

from twisted.logger import Logger

_log = Logger()

_RESERVE = 512
"""Descriptors for the cache's files, connections to upstreams, threads and logs."""


def affordable(connections: int) -> int:
    """How many clients may be connected with the descriptors that the process may have.

    When descriptors run out, nobody new is accepted until some client leaves, whereas at the limit
    of connections the one that has been idle longest goes. So that limit has to come first, and
    the quarter that is left is for what clients ask for: a file or a connection to upstream.

    The soft limit, which is low for the sake of programs that use ``select``, is raised as far as
    the hard one allows, if that many may be needed.

    Args:
        connections: How many the operator wants to allow.
    """
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft == RLIM_INFINITY:
        return connections
    # A client, the file that it reads, and the duplicate of its socket that sends from there.
    wanted = 3 * connections + _RESERVE
    if hard != RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        setrlimit(RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    room = min(connections, soft - soft // 4)
    if room < connections:
        _log.warn(
            "at most {room} clients can be connected at once, not {connections}: the process may "
            "have {descriptors} descriptors (RLIMIT_NOFILE; LimitNOFILE in a systemd unit)",
            room=room,
            connections=connections,
            descriptors=soft,
        )
    return room
