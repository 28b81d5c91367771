"""Axis letters, used the same way everywhere.

B samples in a batch   N samples of the reference   C channel (q-space direction, contrast)
Z latent               I J K voxel axes             ``*space`` any number of voxel axes

The letters are annotations for readers and type checkers; nothing is checked at run time, so that
the core needs torch alone.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from torch import Tensor

Samples: TypeAlias = Annotated[Tensor, "B C *space"]
Latents: TypeAlias = Annotated[Tensor, "B Z"]
SampleScores: TypeAlias = Annotated[Tensor, "B"]
VoxelScores: TypeAlias = Annotated[Tensor, "B *space"]
