"""What is told of a voxel, in a few lines for who reads scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mednovelty.explaining.places import in_words
from mednovelty.explaining.voxel_parts import BAND, Group, Quantity, ScoreWhy, VoxelWhy, at_pixel, drawn_flat

UM2_PER_MS = 1000.0
"""mm2/s to the unit of 10^-3 mm2/s in which diffusivities are told."""
LITTLE = 0.1
"""Relative differences below this are told as none."""
LITTLE_FA = 0.05
MOST_SCANS = 3
FEW_CHANNELS = 4
EVENLY = 0.3
"""Where half of a fall takes more than this share of the measurements, none stands out."""


def lines_of(why: VoxelWhy) -> list[str]:
    """Return what is to be known of a voxel, a sentence or two a line."""
    x, y, z = why.mm
    lines = [
        f"{why.scan_id}, {in_words(why.mm)} (RAS {x:.1f}, {y:.1f}, {z:.1f} mm; voxel "
        f"{', '.join(map(str, why.voxel))})."
    ]
    lines += [height_of(score) for score in why.scores[:1]]
    lines += _members(why)
    lines += _neighbours(why)
    lines += _diffusion(why) if why.diffusion is not None else _image(why)
    for score in told_first(why):
        lines += [line for line in (driven_by(score), strongest_of(score, why.groups)) if line]
    return lines


def told_first(why: VoxelWhy) -> list[ScoreWhy]:
    """Return whose drivers are told, at most one: the first score; of a combination its least likely one."""
    members = set(why.scores[0].members) if why.scores else set()
    if not members:
        return list(why.scores[:1])
    own = [score for score in why.scores if score.score in members and score.drivers]
    return sorted(own, key=_p_or_1)[:1]


def _p_or_1(score: ScoreWhy) -> float:
    return 1.0 if score.p_value is None else score.p_value


def _members(why: VoxelWhy) -> list[str]:
    first = why.scores[0] if why.scores else None
    if first is None or not first.members:
        return []
    members = sorted((s for s in why.scores if s.score in first.members), key=_p_or_1)
    each = [
        f"{score.score} {score.value:.3g} ({'no p' if score.p_value is None else f'p = {score.p_value:.2g}'})"
        for score in members
    ]
    return [f"{first.score} is a combination of what its scores are here: {'; '.join(each)}."]


def height_of(score: ScoreWhy) -> str:
    """Return how high a score is among others, in words.

    Examples:
        >>> from mednovelty.explaining.places import Standing
        >>> height_of(ScoreWhy("combi", 2.5, Standing(12, 1600, "voxels of this scan's own brain mask")))
        "combi is 2.5: number 12 of the 1,600 voxels of this scan's own brain mask (top 0.75 %). No \
calibration by healthy scans."
    """
    stands = score.standing
    name = score.score + (f" ({score.about.rstrip('.').lower()})" if score.about else "")
    number = "the highest" if stands.above == 1 else f"number {stands.above:,}"
    own = f"{number} of the {stands.of:,} {stands.among} (top {_percent(stands.share)})"
    if score.p_value is None:
        return f"{name} is {score.value:.3g}: {own}. No calibration by healthy scans."
    return (
        f"{name} is {score.value:.3g}: in healthy scans that were held out {_percent(score.p_value)} "
        f"of voxels score as high (p = {score.p_value:.2g}); {own}."
    )


def driven_by(score: ScoreWhy) -> str:
    """Return which groups a score is driven by, in words; empty where that is not known.

    Examples:
        >>> from mednovelty.explaining.places import Standing
        >>> from mednovelty.explaining.voxel_parts import Driver
        >>> drivers = (Driver("b=0", 3.8), Driver("b=1000", 1.0))
        >>> driven_by(ScoreWhy("nll", 4.0, Standing(1, 9, ""), own=4.0, as_normal=0.5, drivers=drivers))
        'Driven by b=1000: were it as in the nearest normals, nll would be 1 in place of 4 (86 % of the way \
to 0.5, where all channels together would bring it).'
    """
    fall = None if score.as_normal is None or score.own is None else score.own - score.as_normal
    if not score.drivers or fall is None or score.own is None:
        return ""
    least = min(score.drivers, key=lambda driver: driver.without)
    if fall <= 0 or least.without >= score.own:
        return (
            f"No single group of channels drives {score.score}: were all as in the nearest normals, it "
            f"would be {score.as_normal:.3g} in place of {score.own:.3g}."
        )
    share = (score.own - least.without) / fall
    return (
        f"Driven by {least.group}: were it as in the nearest normals, {score.score} would be "
        f"{least.without:.3g} in place of {score.own:.3g} ({share:.0%} of the way to {score.as_normal:.3g}, "
        "where all channels together would bring it)."
    ).replace("%", " %")


def strongest_of(score: ScoreWhy, groups: Sequence[Group]) -> str:
    """Return how many measurements of the group that drives a score do so, in words; empty where it has few.

    Examples:
        >>> from mednovelty.explaining.places import Standing
        >>> from mednovelty.explaining.voxel_parts import Driver
        >>> drivers, falls = (Driver("b=0", 3.8), Driver("b=1000", 1.0)), np.array([0.2, 2, 0.5, 0.4, 0.1])
        >>> told = ScoreWhy("nll", 4.0, Standing(1, 9, ""), drivers=drivers, by_channel=falls)
        >>> strongest_of(told, (Group("b=0", (0,)), Group("b=1000", (1, 2, 3, 4))))
        'Half of that comes from 1 of the 4 measurements at b=1000.'
    """
    least = min(score.drivers, key=lambda driver: driver.without, default=None)
    channels = next((list(g.channels) for g in groups if least is not None and g.name == least.group), [])
    if score.by_channel is None or len(channels) < FEW_CHANNELS:
        return ""
    falls = np.sort(np.clip(score.by_channel[channels], 0.0, None))[::-1]
    if least is None or falls.sum() <= 0:
        return ""
    half = int(np.searchsorted(np.cumsum(falls), falls.sum() / 2)) + 1
    alike = ": all have a part in it" if half > EVENLY * len(channels) else ""
    return f"Half of that comes from {half} of the {len(channels)} measurements at {least.group}{alike}."


def _neighbours(why: VoxelWhy) -> list[str]:
    near = why.nearest
    if near is None:
        return ["The detector keeps no normals to compare with."]
    places = [
        normal.scan + ("" if normal.mm is None else " at " + ", ".join(f"{v:.0f}" for v in normal.mm))
        for normal in near.normals
        if normal.scan
    ]
    more = f" and {len(places) - MOST_SCANS} more" if len(places) > MOST_SCANS else ""
    what = "voxels" if why.diffusion is not None else "samples, by their middles"
    told = f": {'; '.join(places[:MOST_SCANS])}{more} (RAS mm)" if places else ", from scans not kept"
    return [f"The {len(near.normals)} most similar healthy {what}{told}."]


def _diffusion(why: VoxelWhy) -> list[str]:
    told = why.diffusion
    assert told is not None
    lines = []
    if len(why.normals):
        changes = [f"{group.name} {_change(why, group)}" for group in why.groups]
        lines.append(f"Signal against theirs: {', '.join(changes)}.")
    if told.band is not None:
        low, high = (round(100 * end) for end in BAND)
        lines.append(
            f"{told.outside} of {len(told.bvalues)} measurements lie beyond what healthy voxels of any "
            f"tissue show ({low} to {high} %)."
        )
    if told.md is not None and told.fa is not None:
        lines.append(
            f"Mean diffusivity {_of(told.md, UM2_PER_MS)} x 10^-3 mm2/s, anisotropy (FA) {_of(told.fa, 1)}: "
            f"{_meaning(told.md, told.fa)}."
        )
    if told.misfit is not None and told.misfit.voxel > told.misfit.high:
        times = told.misfit.voxel / told.misfit.nearest if told.misfit.nearest else float("inf")
        lines.append(
            f"The signal jumps from direction to direction, {times:.1f} times as much as in the most similar "
            "healthy voxels: look for motion, an artefact or noise before a lesion."
        )
    return lines


def _meaning(md: Quantity, fa: Quantity) -> str:
    """Return what differences from the most similar healthy voxels mean."""
    relative = md.voxel / md.nearest - 1 if md.nearest else 0.0
    moves = "as freely" if abs(relative) < LITTLE else "more freely" if relative > 0 else "less freely"
    by = fa.voxel - fa.nearest
    along = "no more and no less" if abs(by) < LITTLE_FA else "more" if by > 0 else "less"
    beyond = " and beyond 90 % of healthy tissue" if not md.low <= md.voxel <= md.high else ""
    return (
        f"water moves {moves} {'as' if moves == 'as freely' else 'than'} in the most similar healthy "
        f"voxels{beyond}, and {along} along one direction"
    )


def _of(quantity: Quantity, unit: float) -> str:
    here, nearest, low, high = (
        f"{value * unit:.2f}" for value in (quantity.voxel, quantity.nearest, quantity.low, quantity.high)
    )
    return f"{here} (most similar normals {nearest}; 90 % of normals {low} to {high})"


def _change(why: VoxelWhy, group: Group) -> str:
    own = why.signal[list(group.channels)].mean()
    normal = why.normals[:, list(group.channels)].mean()
    return f"{own / normal - 1:+.0%}".replace("%", " %") if normal > 0 else "not comparable"


def _image(why: VoxelWhy) -> list[str]:
    def at(values: np.ndarray, group: Group) -> float:
        return float(at_pixel(values, why.pixel)[list(group.channels)].mean())

    parts = []
    for group in why.groups:
        beside = []
        if why.reconstruction is not None:
            beside.append(f"the model's reconstruction {at(why.reconstruction, group):.2f}")
        if len(why.normals):
            beside.append(f"nearest normals {np.mean([at(one, group) for one in why.normals]):.2f}")
        parts.append(
            f"{group.name} {at(why.signal, group):.2f}" + (f" ({', '.join(beside)})" if beside else "")
        )
    flat = [
        f"The model draws {group.name} nearly flat (it varies {_percent(share)} as much as the image): how "
        "far the image is from that tells how bright it is, and nothing of what would be there in health."
        for group in why.groups
        if (share := drawn_flat(why, group)) is not None
    ]
    return [f"At this voxel, in units after preprocessing: {'; '.join(parts)}.", *flat]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


__all__ = ["driven_by", "height_of", "lines_of", "strongest_of", "told_first"]
