"""Scan to scan, one step a file."""
