"""Settings of the scores by nearest latent neighbours (Mesarcik et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from mednovelty.errors import SettingsError

MOST_NEIGHBOURS = 1000
"""Each is decoded for every sample; above this the number is a slip of the pen."""

OFFERED_NEIGHBOURS = (1, 2, 3, 5, 10)
"""K that are tried by tuning, and that scoring can change to: constants are measured for each."""


@dataclass(frozen=True, slots=True)
class NLNSettings:
    """How many neighbours, and how their two terms are weighed.

    The defaults lie in the middle of what the paper chose by its test sets: K of 1 to 3, alpha of 0.5 to 1.
    The released code has alpha = 0.6 for all.

    Attributes:
        k: K, neighbours among the training latents. Constants are measured for this and for
            ``OFFERED_NEIGHBOURS``, among which scoring can choose.
        alpha: Weight of the error against the decoded neighbours, 0 to 1; that of the distances to them is
            1 - alpha.
        reverse: Eq. (8) as the released code has it, the other way round: the neighbours' latents against
            the second encoder's view of the sample's own reconstruction.
        tune: Choose K and alpha when fitting, by anomalies made of held-out normals (``mednovelty.tuning``);
            what was chosen then stands in ``k`` and ``alpha``.
    """

    k: int = 2
    alpha: float = 0.8
    reverse: bool = False
    tune: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_NEIGHBOURS:
            raise SettingsError(f"nln.k must lie between 1 and {MOST_NEIGHBOURS}, got {self.k}")
        if not 0 <= self.alpha <= 1:
            raise SettingsError(f"nln.alpha must lie between 0 and 1, got {self.alpha}")

    def offered(self, most: int) -> tuple[int, ...]:
        """Return K and ``OFFERED_NEIGHBOURS``, ascending, as far as there are that many normals.

        Examples:
            >>> NLNSettings(k=4).offered(most=7)
            (1, 2, 3, 4, 5)
        """
        return tuple(k for k in sorted({self.k, *OFFERED_NEIGHBOURS}) if k <= most)


__all__ = ["MOST_NEIGHBOURS", "OFFERED_NEIGHBOURS", "NLNSettings"]
