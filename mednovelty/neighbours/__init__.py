"""Nearest neighbours among fixed vectors."""
