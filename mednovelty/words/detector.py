"""From reports to how novel each is: word vectors, and context vectors over them (Ruff 2021, section 3.2).

``reports.json``           ``ReportRecord``: settings, words, the reports it has seen
``words.safetensors``      a vector for each word
``contexts.safetensors``   attention and contexts, and how novel normal reports are in contexts without them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from mednovelty import store
from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.methods.cvdd_kept import KeptContexts
from mednovelty.methods.cvdd_scores import told
from mednovelty.methods.cvdd_settings import ContextSettings
from mednovelty.methods.cvdd_training import CrossFitted, cross_fitted
from mednovelty.record_checks import check_weights
from mednovelty.settings import checked, tree_of
from mednovelty.words.reading import Report
from mednovelty.words.vectors import WordVectors, read_vectors, trained_vectors

RECORD, WORDS, CONTEXTS = "reports.json", "words.safetensors", "contexts.safetensors"
TOP_WORDS = 10


@dataclass(frozen=True)
class ReportSettings:
    """Of ``fit REPORTS --method cvdd``, under ``method_settings``.

    Args:
        contexts: See ``ContextSettings``.
        most_words: Of a file of vectors so many first words are kept, and all of the reports.
        width: d, where vectors are learnt from the reports.
        window: How many words to each side are near, then.
        fewest: Words that occur less often have no vector, then.
    """

    contexts: ContextSettings = field(default_factory=ContextSettings)
    most_words: int = 100_000
    width: int = 50
    window: int = 5
    fewest: int = 2

    def __post_init__(self) -> None:
        for name, most in (("most_words", 1 << 22), ("width", 1024), ("window", 100), ("fewest", 1 << 20)):
            if not 1 <= getattr(self, name) <= most:
                raise SettingsError(f"{name} must lie between 1 and {most}, got {getattr(self, name)}")


class _Seen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    id: str
    sha256: str


class ReportRecord(BaseModel):
    """All of a detector of reports but its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    schema_version: Literal[1] = 1
    kind: Literal["reports"] = "reports"
    settings: dict[str, Any]
    seed: int
    words: list[str] = Field(min_length=1)
    source: str
    normals: int = Field(ge=0)
    reports: list[_Seen] = Field(min_length=1)
    notes: list[str]
    top_words: list[list[str]] = Field(description="those that attention is on the most, a list a context")
    versions: dict[str, str]
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReportDetector:
    """A trained detector of novel reports.

    Attributes:
        vectors: Of words.
        fitted: Contexts.
        settings: What it was fitted with.
        seed: Of training.
        reports: Id and sha256 of those it has seen.
        notes: What fitting had to say.
        top_words: For each context the words that attention is on the most in normal reports.
        sha256: Of its record on disk; empty before it is saved.
    """

    vectors: WordVectors
    fitted: CrossFitted
    settings: ReportSettings
    seed: int
    reports: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    top_words: tuple[tuple[str, ...], ...]
    sha256: str = ""

    @classmethod
    def fit(
        cls,
        reports: Sequence[Report],
        *,
        embeddings: Path | None = None,
        settings: ReportSettings | None = None,
        seed: int = 0,
        say: Callable[[str], Any] = lambda words: None,
    ) -> ReportDetector:
        """Return a detector trained on reports of healthy people.

        Args:
            reports: From ``read_report``; each is used once.
            embeddings: A file of word vectors; None: they are learnt from the reports.
            settings: None: the defaults.
            seed: Same seed, same reports: same bits.
            say: Told what goes on.

        Raises:
            ScanError: Two reports have one id, no report has a known word, or the file of vectors is none.
            SettingsError: There are too few words, or too few that differ.
        """
        settings = settings or ReportSettings()
        refuse_same_ids(reports)
        vectors = _vectors(reports, embeddings, settings)
        say(f"word vectors: {vectors.source}, {vectors.vectors.shape[1]} numbers each")
        known = [report for report in reports if vectors.known(report.words)]
        notes = [f"left out: {r.id}: none of its words has a vector" for r in reports if r not in known]
        if not known:
            raise ScanError(f"no word of {len(reports)} reports has a vector in {vectors.source}",
                            code="report.unknown_words")  # fmt: skip
        bags = [vectors.bag(report.words) for report in known]
        _refuse_too_few(bags, settings.contexts.contexts)
        fitted = cross_fitted(bags, settings.contexts, seed)
        tops = _top_words(known, bags, vectors, fitted)
        seen = tuple((report.id, report.sha256) for report in known)
        return cls(vectors, fitted, settings, seed, seen, tuple(notes), tops)

    def score(self, report: Report) -> dict[str, Any]:
        """Return what is found of a report, JSON types.

        ``overall``, ``p_value`` and so on are as of a scan; ``words`` has, in order, each word with a vector,
        its ``attention`` in each context, and its ``share``: what it adds to each contextual score.

        Raises:
            ScanError: None of its words has a vector.
        """
        words = self.vectors.known(report.words)
        if not words:
            raise ScanError(f"{report.id}: none of its {len(report.words)} words has a vector",
                            code="report.unknown_words")  # fmt: skip
        bag = self.vectors.bag(words)
        verdict = self.fitted.judged(lambda: [bag])
        each = zip(
            words, verdict.judgement.attention.tolist(), verdict.judgement.shares.tolist(), strict=True
        )
        unknown = sorted(set(report.words) - set(words))
        return {
            **told(verdict),
            "unknown_words": unknown,
            "share_known": len(words) / len(report.words),
            "words": [{"word": word, "attention": a, "share": s} for word, a, s in each],
        }

    def save(self, folder: Path) -> ReportDetector:
        """Write it into a folder; return it with its hash.

        Raises:
            OutputError: The folder cannot be written.
        """
        kept = _room(self.vectors.vectors.shape[1], self.settings, len(self.fitted.normals))
        kept.keep(self.fitted)
        record = ReportRecord(
            settings=store.json_types(tree_of(self.settings)),
            seed=int(self.seed),
            words=list(self.vectors.words),
            source=self.vectors.source,
            normals=len(self.fitted.normals),
            reports=[_Seen(id=name, sha256=sha256) for name, sha256 in self.reports],
            notes=list(self.notes),
            top_words=[list(words) for words in self.top_words],
            versions={package: version(package) for package in ("mednovelty", "torch", "numpy")},
        )
        files = {WORDS: {"vectors": self.vectors.vectors}, CONTEXTS: kept.state_dict()}
        return replace(self, sha256=store.write(folder, record, files, RECORD))

    @classmethod
    def load(cls, folder: Path) -> ReportDetector:
        """Return the detector of a folder; it scores bit for bit as the one that was saved.

        Raises:
            DetectorError: Nothing there, or damaged.
        """
        path = folder / RECORD
        content, sha256 = store.read_json(path, "detector of reports")
        try:
            record = ReportRecord.model_validate(content)
            settings = checked(ReportSettings, record.settings, "settings")
        except (ValidationError, SettingsError) as error:
            raise DetectorError(
                f"{path}: not the record of a detector of reports: {store.one_line(error)}"
            ) from error
        vectors = store.read_tensors(folder / WORDS, record.files).get("vectors", torch.zeros(0))
        if vectors.ndim != 2 or len(vectors) != len(record.words) or len(set(record.words)) != len(vectors):
            raise DetectorError(
                f"{path}: {len(record.words)} words do not fit vectors of {tuple(vectors.shape)}"
            )
        fitted = _contexts(folder, record, settings, vectors)
        tops = tuple(map(tuple, record.top_words))
        seen = tuple((report.id, report.sha256) for report in record.reports)
        words = WordVectors(tuple(record.words), vectors, record.source)
        return cls(words, fitted, settings, record.seed, seen, tuple(record.notes), tops, sha256)

    def verdict(self) -> str:
        """Return in words what was fitted."""
        scores = self.fitted.normals.mean(1)
        told = f"{len(self.fitted.whole.contexts)} contexts of {len(self.reports)} reports; " + (
            f"each judged by contexts that never saw it, they score {scores.min():.4g} to "
            f"{scores.max():.4g}, and no p-value of a report can be below {1 / (len(scores) + 1):.2g}"
            if len(scores)
            else "too few to compare a report with: all p-values are 1"
        )
        return told + "".join(f"; context {k + 1}: {', '.join(w)}" for k, w in enumerate(self.top_words))


def refuse_same_ids(reports: Sequence[Report]) -> None:
    """Raise where two reports could not be told apart in a table."""
    twice = [name for name, count in Counter(report.id for report in reports).items() if count > 1]
    if twice:
        raise ScanError(f"{twice[0]}.txt: {len(twice)} names occur more than once among the reports; "
                        "give each report its own", code="report.same_id")  # fmt: skip


def _vectors(reports: Sequence[Report], path: Path | None, settings: ReportSettings) -> WordVectors:
    words = [report.words for report in reports]
    if path is not None:
        found = read_vectors(path, {word for each in words for word in each}, settings.most_words)
    else:
        found = trained_vectors(words, width=settings.width, window=settings.window, fewest=settings.fewest)
    return found.with_directions()


def _refuse_too_few(bags: Sequence[Tensor], contexts: int) -> None:
    different = len(torch.cat(list(bags)).unique(dim=0))
    if different < contexts:
        raise SettingsError(
            f"{contexts} contexts cannot be learnt from {different} different word vectors; lower "
            "method_settings.contexts.contexts, or give other vectors or more reports"
        )


def _room(width: int, settings: ReportSettings, normals: int) -> KeptContexts:
    return KeptContexts(width, settings.contexts, normals)


def _contexts(folder: Path, record: ReportRecord, settings: ReportSettings, vectors: Tensor) -> CrossFitted:
    tensors = store.read_tensors(folder / CONTEXTS, record.files)
    try:
        with torch.device("meta"):  # What the file asks for is compared before any memory is taken.
            sketch = _room(vectors.shape[1], settings, record.normals)
        check_weights(sketch, tensors)
        kept = _room(vectors.shape[1], settings, record.normals)
        kept.load_state_dict(tensors)
        return kept.fitted()
    except (DetectorError, SettingsError) as error:
        raise DetectorError(f"{folder / CONTEXTS}: {error}") from error


def _top_words(
    reports: Sequence[Report], bags: Sequence[Tensor], vectors: WordVectors, fitted: CrossFitted
) -> tuple[tuple[str, ...], ...]:
    """Return, for each context, the words with the most attention in all of some reports."""
    totals: list[Counter[str]] = [Counter() for _ in fitted.whole.contexts]
    for report, bag in zip(reports, bags, strict=True):
        attention = fitted.whole.judged([bag]).attention.tolist()
        for word, weights in zip(vectors.known(report.words), attention, strict=True):
            for total, weight in zip(totals, weights, strict=True):
                total[word] += weight
    return tuple(tuple(word for word, _ in total.most_common(TOP_WORDS)) for total in totals)


__all__ = ["RECORD", "ReportDetector", "ReportRecord", "ReportSettings"]
