"""What is told of a voxel in numbers, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mednovelty.explaining.null_curve import QUANTILES
from mednovelty.explaining.told import lines_of
from mednovelty.explaining.voxel_parts import Group, Quantity, ScoreWhy, VoxelWhy, at_pixel


def told_of(why: VoxelWhy) -> dict[str, Any]:
    """Return all that is to be known of a voxel in numbers, as JSON types; not the pixels of samples."""
    near = why.nearest
    return {
        "ScanId": why.scan_id,
        "Voxel": list(why.voxel),
        "PlaceMm": [round(value, 3) for value in why.mm],
        "Text": lines_of(why),
        "Scores": [_score(score, why.groups) for score in why.scores],
        "NearestNormals": None
        if near is None
        else {
            "Between": near.between,
            "Decoded": near.decoded,
            "Normals": [
                {"Scan": n.scan or None, "PlaceMm": n.mm, "Distance": n.distance} for n in near.normals
            ],
        },
        "Groups": [{"Name": group.name, "Channels": list(group.channels)} for group in why.groups],
        "Diffusion": _told_diffusion(why) if why.diffusion is not None else None,
        "Sample": None
        if not why.pixel
        else {
            "Shape": list(why.signal.shape),
            "Pixel": list(why.pixel),
            "Signal": _at(why.signal, why.pixel),
            "Reconstruction": None if why.reconstruction is None else _at(why.reconstruction, why.pixel),
            "NearestNormals": [_at(one, why.pixel) for one in why.normals],
            "GradientOf": why.gradient_of or None,
        },
    }


def _at(values: np.ndarray, pixel: Sequence[int]) -> list[float]:
    return [float(value) for value in at_pixel(values, pixel)]


def _score(score: ScoreWhy, groups: Sequence[Group]) -> dict[str, Any]:
    stands = score.standing
    return {
        "Score": score.score,
        "Value": score.value,
        "AsHighOrHigher": {"Voxels": stands.above, "Of": stands.of, "Among": stands.among},
        "PValue": score.p_value,
        "OfTheSampleAlone": score.own,
        "AsNormal": score.as_normal,
        "Drivers": [
            {"Group": d.group, "ScoreWithGroupAsNormal": d.without, "Relevance": d.relevance}
            for d in score.drivers
        ],
        "FallByChannel": None if score.by_channel is None else score.by_channel.tolist(),
        "Relevance": None if score.relevance is None else score.relevance.tolist(),
        "RelevanceRule": score.rule,
        "CombinationOf": list(score.members) or None,
        "HealthyVoxels": None
        if score.null is None
        else {"Voxels": score.null.n, "Quantiles": {str(q): score.null.quantile(q) for q in QUANTILES}},
    }


def _told_diffusion(why: VoxelWhy) -> dict[str, Any]:
    told = why.diffusion
    assert told is not None
    return {
        "BValues": told.bvalues.tolist(),
        "Directions": told.directions.tolist(),
        "Unit": "signal relative to the mean of the scan's brain",
        "Signal": why.signal.tolist(),
        "Reconstruction": None if why.reconstruction is None else why.reconstruction.tolist(),
        "NearestNormals": why.normals.tolist(),
        "Normals5": None if told.band is None else told.band[0].tolist(),
        "Normals95": None if told.band is None else told.band[1].tolist(),
        "OutsideBand": told.outside,
        "MeanDiffusivity": None if told.md is None else _told_quantity(told.md),
        "FractionalAnisotropy": None if told.fa is None else _told_quantity(told.fa),
        "TensorMisfit": None if told.misfit is None else _told_quantity(told.misfit),
    }


def _told_quantity(quantity: Quantity) -> dict[str, float]:
    return {
        "Voxel": quantity.voxel,
        "NearestNormals": quantity.nearest,
        "Normals5": quantity.low,
        "Normals95": quantity.high,
    }


__all__ = ["told_of"]
