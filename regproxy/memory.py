"""How the C library keeps the memory that pieces of blobs come and go in."""

from __future__ import annotations

_LARGEST_PIECE = 16 * 1024 * 1024


def keep_freed_memory() -> None:
    """Has glibc reuse the memory of large pieces instead of returning it to the kernel each time.

    glibc maps blocks of 128 KiB and more anew for each use, and the kernel clears every page of
    them, until it has seen a larger one freed: from then on blocks up to that size come from the
    heap (mallopt(3), "dynamic mmap threshold"). A fill spends a tenth less time after this. Other
    C libraries are not affected.
    """
    freed = bytearray(_LARGEST_PIECE)
    del freed
