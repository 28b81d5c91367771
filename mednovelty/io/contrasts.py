"""Which subject's which contrast an image is, by its name alone.

``sub-01/anat/sub-01_FLAIR``   BIDS: subject and session are the scan, all other words the contrast
``patient07/FLAIR``            one folder a subject: its name is the scan's, the file's is the contrast's
``p07_FLAIR``                  flat: what stands before the contrast is the scan
``p07``                        no contrast in the name: it is called ``image``
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mednovelty.io.names import Entities, clean_id, entities, stem
from mednovelty.io.walk import relative_to

UNNAMED = "image"
MODALITY_FOLDERS = ("anat", "ct")
"""Folders of a BIDS tree that hold structural images; CT has no folder in the standard, but this in use."""

_KNOWN = re.compile(
    r"(ce)?(gd)?(t1|t2|pd)(w|n|c|ce|f|gd|km|post|pre|s|star|starw)?|(t2)?flair|flairw?|n?ct|ncct|cta|adc|dwi|swi"
    r"|mprage|mp2rage|unit1|qsm|tof|mra|stir|pet|cbf|cbv|mtt|tmax|ttp"
)
_SEPARATORS = "._-"


@dataclass(frozen=True, slots=True)
class Named:
    """An image and what its name says.

    Attributes:
        path: The image.
        relative: Below the folder that was asked for.
        subject: The same for all images of one scan, and for no other's.
        id: Of the scan.
        contrast: ``FLAIR``, ``ce-GD_T1w``, or ``image`` where the name tells none.
        entities: Subject and session of a BIDS name.
    """

    path: Path
    relative: str
    subject: tuple[str, ...]
    id: str
    contrast: str
    entities: Entities = ()


def is_known(contrast: str) -> bool:
    """Whether a word is what people call a contrast, whatever its case and separators.

    Examples:
        >>> [is_known(word) for word in ("FLAIR", "T1_post", "ce-GD_T1w", "CT", "p07", "lesion")]
        [True, True, True, True, False, False]
    """
    return _KNOWN.fullmatch(re.sub(f"[{_SEPARATORS}]", "", contrast.lower())) is not None


def name_images(paths: Sequence[Path], root: Path, asked: Sequence[str] = ()) -> list[Named]:
    """Return what the names of images say.

    A contrast that was asked for is one at the end of any name; others are known by what people call
    them, or by lying under the same name in two subjects' folders.

    Args:
        paths: Images below ``root``.
        root: The folder that was asked for; the id of images that lie in it and are named by contrast.
        asked: Contrasts that were asked for.
    """
    base = os.path.basename(os.path.abspath(root))
    split = [_parts(path, root, base) for path in paths]
    # Where every file is a subject of its own, the same subject in two folders makes no contrast of it.
    recur = Counter(rest for _, _, rest in split) if UNNAMED not in asked else Counter()
    longest_first = sorted(asked, key=len, reverse=True)
    return [
        _bids(path, root) or _plain(path, root, parts, rest, longest_first, recur[rest] > 1)
        for path, parts, rest in split
    ]


def by_subject(named: Iterable[Named]) -> dict[tuple[str, ...], list[Named]]:
    """Return the images of each subject, in the order in which subjects first come."""
    groups: dict[tuple[str, ...], list[Named]] = {}
    for image in named:
        groups.setdefault(image.subject, []).append(image)
    return groups


def _parts(path: Path, root: Path, base: str) -> tuple[Path, tuple[str, ...], str]:
    """Return the image, the folders it lies in, and its name without the innermost folder's."""
    folders = PurePath(relative_to(path, root)).parts[:-1] or (base,)
    own, folder = stem(path), folders[-1]
    if own == folder:
        return path, folders, ""
    begins = own.startswith(folder) and own[len(folder)] in _SEPARATORS
    return path, folders, own[len(folder) + 1 :] if begins else own


def _bids(path: Path, root: Path) -> Named | None:
    own = stem(path)
    who = tuple((key, value) for key, value in entities(own) if key in ("sub", "ses"))
    if not who:
        return None
    words = [f"{key}-{value}" for key, value in who]
    rest = "_".join(word for word in own.split("_") if word not in words)
    relative = relative_to(path, root)
    folder = path.parent.parent if path.parent.name in MODALITY_FOLDERS else path.parent
    text = "_".join(words)
    above = relative_to(folder, root)
    found = clean_id(text, os.fsencode(f"{above}/{text}"))
    return Named(path, relative, (above, text), found, rest or UNNAMED, who)


def _plain(
    path: Path, root: Path, folders: tuple[str, ...], rest: str, asked: Sequence[str], recurs: bool
) -> Named:
    relative = relative_to(path, root)
    below = PurePath(relative).parts[:-1]
    own = stem(path)
    prefix, contrast = _split(own, rest, asked, recurs and bool(below))
    # A file that is named by its contrast alone belongs to its folder.
    names = [*below, prefix] if prefix else list(folders)
    found = clean_id("_".join(names), os.fsencode("/".join(names)))
    return Named(path, relative, tuple(names), found, contrast)


def _split(own: str, rest: str, asked: Sequence[str], recurs: bool) -> tuple[str, str]:
    """Return a file's own part of the id, empty where the folder is the subject, and its contrast."""
    if rest in asked or is_known(rest):
        return "", rest
    for contrast in asked:
        before = own.removesuffix(contrast)
        if before != own and before[-1:] in tuple(_SEPARATORS) and len(before) > 1:
            return before[:-1], contrast
    for start in range(1, len(own) - 1):
        if own[start] in _SEPARATORS and is_known(own[start + 1 :]):
            return own[:start], own[start + 1 :]
    if recurs and rest:
        return "", rest
    return ("", UNNAMED) if not rest else (own, UNNAMED)
