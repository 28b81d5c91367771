"""Shipped for plug-in authors: contracts, small models, phantoms."""
