"""Why a score is what it is: relevance of each input, and for scans as maps and tables."""

from mednovelty.explaining.explain import METHODS, ExplainSettings, explain
from mednovelty.explaining.relevance import Relevance

__all__ = ["METHODS", "ExplainSettings", "Relevance", "explain"]
