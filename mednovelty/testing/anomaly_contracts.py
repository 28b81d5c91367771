"""What every family of anomalies is held to: ``for check in ANOMALY_CHECKS: check(family, host)``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import torch

from mednovelty.anomalies.host import Anomaly, Host
from mednovelty.seeds import generator


def check_same_bits(family: Anomaly, host: Host) -> None:
    """The same state of the generator plants the same; another plants something else."""
    first, second = (family.plant(host, generator(1, "contract")) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "not reproducible"
    other = family.plant(host, generator(2, "contract"))
    assert not torch.equal(first.images, other.images), "the generator changes nothing"


def check_hands_off(family: Anomaly, host: Host) -> None:
    """The samples given stay as they are."""
    images, mask = host.images.clone(), host.mask.clone()
    made = family.plant(host, generator(1, "contract"))
    assert torch.equal(images, host.images), "the samples were changed in place"
    assert torch.equal(mask, host.mask), "the mask was changed in place"
    made.images.zero_()
    assert torch.equal(images, host.images), "what comes back is a view of the samples"


def check_profile(family: Anomaly, host: Host) -> None:
    """A profile is in 0 to 1, truth is in the mask, and nothing changes where the profile is 0."""
    images, profile, truth = family.plant(host, generator(3, "contract"))
    assert images.shape == host.images.shape
    assert images.dtype == host.images.dtype
    assert profile.shape == truth.shape == host.mask.shape
    assert truth.dtype == torch.bool
    assert images.isfinite().all()
    assert ((profile >= 0) & (profile <= 1)).all()
    assert not profile[~host.mask].any(), "a profile outside the mask"
    assert not truth[~host.mask].any(), "truth outside the mask"
    assert truth.any(), "no sample has an anomaly"
    changed = (images != host.images).any(1)
    assert not changed[profile == 0].any(), "changed where the profile is 0"
    assert changed[truth].float().mean() > 0.5, "most of the truth is as it was"


def check_each_its_own(family: Anomaly, host: Host) -> None:
    """Two samples have two anomalies."""
    profile = family.plant(host, generator(4, "contract")).images - host.images
    assert not torch.equal(profile[0], profile[1])


def check_describes(family: Anomaly, host: Host) -> None:
    """The prior is in words with numbers, and its ranges are JSON; settings cannot be changed."""
    prior = family.describe()
    assert any(letter.isdigit() for letter in prior.words), prior.words
    json.dumps(prior.ranges)
    for field in fields(family):  # type: ignore[arg-type]
        assert field.name in prior.ranges
        try:
            setattr(family, field.name, None)
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{field.name} can be changed")


def check_empty_tissue(family: Anomaly, host: Host) -> None:
    """A sample without tissue comes back as it was, beside others that have some."""
    mask = host.mask.clone()
    mask[0] = False
    bare = Host(host.images, mask, host.spacing_mm, host.gradients)
    images, profile, truth = family.plant(bare, generator(5, "contract"))
    assert torch.equal(images[0], host.images[0])
    assert not profile[0].any()
    assert not truth[0].any()


ANOMALY_CHECKS: tuple[Callable[[Anomaly, Host], None], ...] = (
    check_same_bits,
    check_hands_off,
    check_profile,
    check_each_its_own,
    check_describes,
    check_empty_tissue,
)
