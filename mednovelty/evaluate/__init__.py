"""Evaluation: how well the maps of a score run coincide with lesion masks, beside the trivial baselines."""

from mednovelty.evaluate.result import Curve, EvaluateSettings, Evaluation
from mednovelty.evaluate.run import evaluate

__all__ = ["Curve", "EvaluateSettings", "Evaluation", "evaluate"]
