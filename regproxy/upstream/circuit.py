"""Whether a registry is worth asking while a stored answer would do."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class Circuit:
    """Open after a failure for a while, then one probe decides.

    Only questions that a stored copy can answer look at it; a cold request always asks.
    """

    def __init__(self, clock: IReactorTime, pause: float = 30.0) -> None:
        """Args:
        clock: Tells the time.
        pause: Seconds without questions after a failure.
        """
        self._clock = clock
        self._pause = pause
        self._retry_at: float | None = None

    def may_ask(self) -> bool:
        """Whether to ask now; a True while open makes the caller the one probe."""
        if self._retry_at is None:
            return True
        now = self._clock.seconds()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause
        return True

    def failed(self) -> bool:
        """Records that the registry could not be asked.

        Returns:
            Whether this opened the circuit (so that it is logged once an episode).
        """
        opened = self._retry_at is None
        self._retry_at = self._clock.seconds() + self._pause
        return opened

    def answered(self) -> bool:
        """Records that the registry answered.

        Returns:
            Whether this closed the circuit.
        """
        was_open = self._retry_at is not None
        self._retry_at = None
        return was_open
