"""What a server costs, read from /proc: processor seconds and peak memory of its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command, whose name may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(roots: Iterable[int]) -> list[int]:
    """Return the given processes and all their descendants that live now.

    Args:
        roots: process ids, such as nginx's master.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat_fields(int(entry.name))[1])
            except (OSError, IndexError):  # it ended while we looked
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """Return user and system time spent by each of the processes so far, in seconds.

    One that has ended is left out, as nginx's cache loader does a minute after the start.
    """
    times = {}
    for pid in pids:
        try:
            fields = _stat_fields(pid)
        except OSError:
            continue
        times[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
    return times


def cpu_spent(before: Mapping[int, float]) -> float:
    """Return the seconds that the processes spent since, for as long as they live."""
    return sum(now - before[pid] for pid, now in cpu_seconds(before).items())


def reset_peak_memory(pids: Iterable[int]) -> None:
    """Make each process's peak memory start again from what it holds now (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory(pids: Iterable[int]) -> float:
    """Return the sum of the processes' peak resident sets (VmHWM), in MiB."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                kib += int(line.split()[1])
    return kib * 1024 / _MIB
