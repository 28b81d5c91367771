"""Evaluation: how well the maps of a score run coincide with lesion masks, beside the trivial baselines."""

from mednovelty.evaluation.result import Curve, EvaluateSettings, Evaluation
from mednovelty.evaluation.run import evaluate

__all__ = ["Curve", "EvaluateSettings", "Evaluation", "evaluate"]
