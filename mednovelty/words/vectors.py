"""A vector for each word: from a text file, or from which words stand near each other in the reports.

A file has a line a word, ``word v1 v2 ...``, as GloVe and fastText publish them, and may begin with the line
of two numbers that word2vec writes, how many words and how wide.

Without a file: positive pointwise mutual information of words within a window, contexts smoothed by the
power 0.75, and the truncated singular value decomposition of that matrix, ``U sqrt(S)`` (Levy, Goldberg and
Dagan, "Improving Distributional Similarity with Lessons Learned from Word Embeddings", 2015, sections 2, 3).
It is small and knows only these reports.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mednovelty.errors import ScanError, SettingsError
from mednovelty.io.guard import GuardedFile

SMOOTHING = 0.75
LONGEST_LINE = 1 << 18
WIDEST = 4096
MOST_TRAINED = 4000
"""Words that vectors are learnt for, the most frequent: all pairs of them are counted."""


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes:
        words: Each once, lower case.
        vectors: ``(V, d)`` float32.
        source: Where they are from, in words.
    """

    words: tuple[str, ...]
    vectors: Tensor
    source: str

    @cached_property
    def place(self) -> dict[str, int]:
        """Return the row of each word."""
        return {word: row for row, word in enumerate(self.words)}

    def known(self, words: Iterable[str]) -> list[str]:
        """Return those words that have a vector, in order."""
        return [word for word in words if word in self.place]

    def with_directions(self) -> WordVectors:
        """Return those words whose vector is not 0: of another, cosines say nothing.

        Raises:
            ScanError: There is none.
        """
        kept = self.vectors.any(1)
        if kept.all():
            return self
        if not kept.any():
            raise ScanError(f"{self.source}: the vectors of all {len(self.words)} words are 0; give others",
                            code="vectors.zero")  # fmt: skip
        words = tuple(word for word, keep in zip(self.words, kept.tolist(), strict=True) if keep)
        return WordVectors(words, self.vectors[kept], self.source)

    def bag(self, words: Iterable[str]) -> Tensor:
        """Return ``(n, d)`` vectors of those words that have one."""
        return self.vectors[[self.place[word] for word in words if word in self.place]]


def read_vectors(path: Path, wanted: Iterable[str], most: int) -> WordVectors:
    """Return the vectors of a file: those of its first words, and of wanted ones wherever they stand.

    Words in other cases are taken as lower case where that is not there itself; the first counts.

    Args:
        path: UTF-8 text.
        wanted: Words of the reports to learn from.
        most: Of its first words so many.

    Raises:
        ScanError: A line is no word with numbers as many as the first has, or there is none.
    """
    own, rows, width = set(wanted), {}, 0
    for number, (word, numbers) in enumerate(_lines(path)):
        if number == 0 and len(numbers) == 1 and word.isdigit():
            continue
        width = width or len(numbers)
        if len(numbers) > width and not _is_number(numbers[0]):
            continue  # A few files have entries of several words.
        if len(numbers) != width or width > WIDEST:
            raise ScanError(f"{path.name}: line {number + 1} has {len(numbers)} numbers, where the first has "
                            f"{width} (at most {WIDEST})", code="vectors.width")  # fmt: skip
        key = word.lower()
        if key not in rows and (number < most or key in own):
            rows[key] = _numbers(path, number, numbers)
    if not rows:
        raise ScanError(f"{path.name}: there is no word with numbers in it", code="vectors.empty")
    return WordVectors(tuple(rows), torch.from_numpy(np.stack(list(rows.values()))), f"the file {path.name}")


def _lines(path: Path) -> Iterable[tuple[str, list[bytes]]]:
    """Yield each line's word and the texts of its numbers."""
    with GuardedFile(path) as file:
        rest, number = b"", 0
        while block := file.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise ScanError(f"{file.name}: line {number + len(lines) + 1} is longer than {LONGEST_LINE} "
                                "bytes; is it a text of word vectors?", code="vectors.line")  # fmt: skip
            for line in lines:
                number += 1
                if line.strip():
                    yield _split(file.name, number, line)
        if rest.strip():
            yield _split(file.name, number + 1, rest)


def _split(name: str, number: int, line: bytes) -> tuple[str, list[bytes]]:
    word, *numbers = line.split()
    try:
        return word.decode("utf-8"), numbers
    except UnicodeDecodeError as error:
        raise ScanError(f"{name}: line {number} is not UTF-8 text; is it a text of word vectors?",
                        code="vectors.encoding") from error  # fmt: skip


def _numbers(path: Path, number: int, texts: list[bytes]) -> np.ndarray:
    try:
        vector = np.array([float(text) for text in texts], np.float32)
    except (ValueError, OverflowError):
        vector = np.array([math.nan], np.float32)
    if not len(vector) or not np.isfinite(vector).all():
        raise ScanError(f"{path.name}: line {number + 1}: a word must be followed by finite numbers alone",
                        code="vectors.number")  # fmt: skip
    return vector


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def trained_vectors(reports: Sequence[Sequence[str]], *, width: int, window: int, fewest: int) -> WordVectors:
    """Return vectors learnt from the words of reports.

    Args:
        reports: The words of each, in order.
        width: d, at most one less than there are words.
        window: How many words to each side count as near.
        fewest: Words that occur less often have no vector.

    Raises:
        SettingsError: Fewer than three words occur so often.
    """
    counts = Counter(word for words in reports for word in words)
    often = sorted(
        (word for word, n in counts.items() if n >= fewest), key=lambda word: (-counts[word], word)
    )
    words = tuple(often[:MOST_TRAINED])
    if len(words) < 3:
        raise SettingsError(
            f"{len(words)} words occur at least {fewest} times in {len(reports)} reports, too few to learn "
            "vectors from; give word vectors by --embeddings"
        )
    place = {word: row for row, word in enumerate(words)}
    matrix = ppmi([[place[word] for word in words if word in place] for words in reports], len(words), window)
    vectors = _leading(matrix, min(width, len(words) - 1))
    source = f"learnt from {len(reports)} reports, {len(words)} words that occur at least {fewest} times"
    return WordVectors(words, torch.from_numpy(vectors), source)


def ppmi(reports: Sequence[Sequence[int]], words: int, window: int) -> np.ndarray:
    """Return the positive pointwise mutual information of words with words near them, ``(V, V)`` float64.

    ``max(0, log p(w, c) / (p(w) p(c)))``, where p(c) is proportional to the count of c to the power 0.75.

    Args:
        reports: Numbers of words, in order.
        words: V.
        window: How many to each side are near.
    """
    near = np.zeros((words, words))
    for report in reports:
        row = np.asarray(report, np.int64)
        for step in range(1, window + 1):
            np.add.at(near, (row[:-step], row[step:]), 1.0)
    near = near + near.T
    smooth = near.sum(0) ** SMOOTHING
    expected = near.sum(1)[:, None] * (smooth / max(smooth.sum(), 1e-300))[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(near / expected)
    return np.where(near > 0, np.maximum(information, 0.0), 0.0)


def _leading(matrix: np.ndarray, width: int) -> np.ndarray:
    """Return ``U sqrt(S)`` of the first singular vectors, ``(V, d)`` float32, each with a certain sign."""
    from scipy.sparse.linalg import svds

    start = np.ones(len(matrix)) / math.sqrt(len(matrix))
    left, values, _ = svds(matrix, k=width, v0=start) if width < len(matrix) // 2 else _all(matrix, width)
    order = np.argsort(-values)
    left = left[:, order] * np.sign(left[np.abs(left[:, order]).argmax(0), order])
    return (left * np.sqrt(values[order])).astype(np.float32)


def _all(matrix: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left, values, right = np.linalg.svd(matrix)
    return left[:, :width], values[:width], right[:width]


__all__ = ["WordVectors", "ppmi", "read_vectors", "trained_vectors"]
