"""What a model may offer, and what a score asks of it.

================ ============================================================= =====================
``encode``       ``encode(x)``: latents                                        all but some shallow
``decode``       ``decode(z)``: samples                                        all but some shallow
``novelty``      ``novelty(x)``, ``(B,)``: a score of the method's own         shallow methods
``prior``        distributions: a posterior, a likelihood and a prior          variational methods
``features``     ``features(x)``, ``(B, H)``, of a discriminator of samples    ``ae_res``, ``ae_con``
``consistent``   ``consistent(x)``, ``(B, Z)``: a second encoder, of           ``ae_con``
                 reconstructions
``hypersphere``  ``hypersphere(z)``, ``(B,)``: how far latents are outside     ``deep_svdd`` and
                 of where the normal ones were brought                         its relatives
``heatmap``      ``heatmap(x)``, ``(B, *sides)``: how abnormal parts of        ``fcdd``
                 samples are; ``upsampled(maps)``, ``(B, *space)``: the same
                 of their voxels
``lesion_map``   ``lesion_map(x)``, ``(B, *space)``: log-odds that an anomaly  ``synthetic_lesions``
                 is there
``contexts``     ``contexts``: context vectors over the latents of a scan's    ``cvdd``
                 voxels, of which ``members(x)`` gives those
================ ============================================================= =====================

A model offers what it has under these names. A method tells beforehand, as ``offers``, what its models will
besides encoding and decoding, and as ``lacks`` which of those two they will not; a scorer tells as ``asks``
what it needs. One that says nothing offers, or asks for, distributions: so did all there were when there were
no others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mednovelty.errors import SettingsError

PROBABILISTIC = ("prior",)
BOTH_WAYS = ("encode", "decode")
"""What a model offers without saying so."""

WORDS = {
    "encode": "latents, which the methods that encode samples give",
    "decode": "reconstructions, which the methods that decode latents give",
    "novelty": "a score of the method's own, which the shallow methods such as pca and ocsvm give",
    "prior": "distributions (a posterior, a likelihood, a prior), which variational methods such as vae and "
    "image_vae give",
    "features": "the features of a discriminator, which the methods ae_res and ae_con train",
    "consistent": "a second encoder, which the method ae_con trains",
    "hypersphere": "a hypersphere around normal latents, which the methods deep_svdd, deep_sad and hsc train",
    "heatmap": "a map that the network itself gives, which the method fcdd trains",
    "lesion_map": "log-odds of planted anomalies, which the method synthetic_lesions learns",
    "contexts": "context vectors over whole scans, which the method cvdd trains",
}


def asked_by(scorer: Any) -> tuple[str, ...]:
    """Return what a scorer, or its class, asks of a model."""
    return tuple(getattr(scorer, "asks", PROBABILISTIC if "model" in scorer.needs else ()))


def offered_by(method: Any) -> tuple[str, ...]:
    """Return what the models of a method, or of its class, offer."""
    own, lacks = getattr(method, "offers", PROBABILISTIC), getattr(method, "lacks", ())
    return tuple(what for what in (*own, *BOTH_WAYS) if what not in lacks)


def own_of(offered: Iterable[str]) -> tuple[str, ...]:
    """Return what is of a method's own: neither latents, nor reconstructions, nor distributions."""
    return tuple(what for what in offered if what not in (*PROBABILISTIC, *BOTH_WAYS))


def check_offers(name: str, asked: Iterable[str], offered: Iterable[str], who: str) -> None:
    """Refuse a score that asks for what is not there.

    Args:
        name: Of the score.
        asked: What it asks for.
        offered: What there is.
        who: Whose that is, for the message.

    Raises:
        SettingsError: Something is missing.
    """
    missing = [what for what in asked if what not in set(offered)]
    if missing:
        what = WORDS.get(missing[0], repr(missing[0]))
        raise SettingsError(f"{name}: needs {what}; {who} does not")


def check_model(name: str, asked: Iterable[str], model: Any) -> None:
    """Refuse a score that asks for what a model does not have; arguments as of ``check_offers``."""
    asked = tuple(asked)
    check_offers(name, asked, [what for what in asked if hasattr(model, what)], type(model).__name__)


__all__ = ["BOTH_WAYS", "PROBABILISTIC", "asked_by", "check_model", "check_offers", "offered_by", "own_of"]
