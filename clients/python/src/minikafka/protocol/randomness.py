"""Numbers that follow from a seed, so that everything but the seed replays: SplitMix64 (Steele, Lea, Flood 2014)."""

from __future__ import annotations

from typing import Final

_MASK: Final = (1 << 64) - 1


class Randomness:
    """A stream of numbers."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def number(self) -> int:
        """The next one, 64 bits."""
        self._state = (self._state + 0x9E37_79B9_7F4A_7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
        return mixed ^ (mixed >> 31)

    def fraction(self) -> float:
        """0 to 1."""
        return (self.number() >> 11) / (1 << 53)

    def member_id(self) -> int:
        """A number that is not 0."""
        return self.number() or 1

    def fork(self) -> Randomness:
        """Another stream, which follows from this one."""
        return Randomness(self.number())
