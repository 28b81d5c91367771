"""Shallow baselines: what learns no features, fitted at once by scikit-learn and scored by torch."""
