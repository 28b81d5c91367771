"""Measurements that can be run again: ``python -m mednovelty.benchmarks.<name>``."""
