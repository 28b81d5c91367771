"""Scan to samples and scores back to a volume."""
