"""How novel a scan is as a whole, and which of its voxels make it so (Ruff 2021, Eq. (3.13))."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch

from mednovelty.capabilities import check_model
from mednovelty.methods.cvdd_training import Verdict
from mednovelty.papers import equation
from mednovelty.protocols import ScanJudgement
from mednovelty.types import Samples


@equation("ruff2021_thesis", "Eq. (3.13), of a scan")
class CVDDScore:
    """What each voxel adds to its scan's distance from the contexts of normal scans.

    With n voxels the map is ``mean_k n a_kt (1 - <c_k, h_t> / (|c_k| |m_k|)) / 2``: its mean over the mask is
    the scan's overall score, Eq. (3.13). Beside it, a context each, ``n a_kt``: the attention, 1 where it is
    that of an even look at all voxels.

    Args:
        model: Trained by the method ``cvdd``, in evaluation mode.

    Raises:
        SettingsError: The model has no context vectors, or none were learnt.
    """

    level: ClassVar[Literal["scan"]] = "scan"
    needs: ClassVar[tuple[str, ...]] = ("model",)
    asks: ClassVar[tuple[str, ...]] = ("contexts",)
    unit: ClassVar[str] = "cosine distance"

    def __init__(self, model: Any) -> None:
        check_model("cvdd", self.asks, model)
        self.model, self.fitted = model, model.contexts.fitted()

    @torch.no_grad()
    def judge(self, blocks: Callable[[], Iterable[Samples]]) -> ScanJudgement:
        """Return what is found of one scan.

        Args:
            blocks: Gives its ``(n, C)`` voxels in the mask's order, block by block, whenever it is called.
        """
        # Latents are kept: each of the networks goes through them once.
        latents = list(self.model.members(blocks()))
        found = self.fitted.judged(lambda: latents)
        n = len(found.judgement.attention)
        attention = found.judgement.attention * n
        images = {f"attention-{k + 1}": attention[:, k].numpy() for k in range(attention.shape[1])}
        return ScanJudgement((found.judgement.shares.mean(1) * n).numpy(), images, told(found))


def told(found: Verdict) -> dict[str, Any]:
    """Return a bag's scores as JSON types, by the names that tables give them."""
    judgement = found.judgement
    contexts = zip(judgement.contextual.tolist(), found.contextual_p_values, strict=True)
    return {
        "overall": judgement.overall,
        "p_value": found.p_value,
        "normals": found.normals,
        "nearest_context": judgement.nearest,
        "contexts": [{"score": score, "p_value": p_value} for score, p_value in contexts],
    }


__all__ = ["CVDDScore", "told"]
