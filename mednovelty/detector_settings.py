"""Are a fit's settings ones that can be fitted, before a scan is read?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mednovelty.capabilities import offered_by
from mednovelty.errors import SettingsError
from mednovelty.fitting import FitSettings, check_plugins, make_method, make_view
from mednovelty.nn.precision import check_precision
from mednovelty.plugins import plugin
from mednovelty.recipes import recipe_of
from mednovelty.score_names import resolve_names

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions


def checked_settings(settings: FitSettings | None, recipe: str = "qspace") -> FitSettings:
    """Return settings, or a recipe's defaults, with groups of scores spelled out and every plug-in found.

    Raises:
        UnknownPluginError: One is not installed; the nearest is suggested.
        SettingsError: Half precision is asked for, and samples are voxels; or a view that does not fit the
            recipe.
    """
    if settings is None:
        from mednovelty.model_folder import fit_settings

        settings = fit_settings(where="defaults", recipe=recipe)
    images = recipe_of(recipe).images
    if recipe_of(recipe).diffusion:
        _refuse_view(settings, recipe)
    offers = offered_by(plugin("methods", settings.method))
    names = resolve_names(settings.scores, images=images, offers=offers)
    settings = replace(settings, scores=tuple(names))
    # Which device will score is not known yet.
    check_precision(settings.maps.precision, torch.device("cuda"), images=images)
    check_plugins(settings)
    given = settings.preprocessor_settings
    steps = {name: plugin("preprocessors", name)().state() for name in settings.preprocessors}
    settings = replace(
        settings, preprocessor_settings={name: state | given.get(name, {}) for name, state in steps.items()}
    )
    return settings


def reading(settings: FitSettings) -> ReadOptions:
    """Return how scans are read under some settings."""
    from mednovelty.io.read_scan import ReadOptions

    return ReadOptions(structural_mask=settings.structural_mask)


def _refuse_view(settings: FitSettings, recipe: str) -> None:
    """Raise where a view does not cut diffusion scans into what a recipe is about."""
    view, images = make_view(settings), recipe_of(recipe).images
    if (len(view.shape(1)) > 1) != images:
        other = "qspace" if images else "qspace-volumes"
        raise SettingsError(
            f"view={settings.view!r}: the recipe {recipe} has {'windows' if images else 'single voxels'} of "
            f"diffusion scans; choose another view, or the recipe {other}",
            code="view.recipe",
        )
    background = getattr(view.settings, "background", 0.0)
    if background:
        raise SettingsError(
            f"view_settings.background={background:g}: outside of a diffusion scan there is no signal; leave "
            "it at 0",
            code="background.signal",
        )


def refuse_size(settings: FitSettings, channels: int) -> None:
    """Raise where the network cannot take images of the view's size, or lacks a file; no scan is read yet."""
    with torch.device("meta"):  # No memory is taken.
        method = make_method(settings)
        model = method.build(tuple(make_view(settings).shape(channels)))
        if hasattr(method, "check_ready"):
            method.check_ready(model)


__all__ = ["checked_settings", "reading", "refuse_size"]
