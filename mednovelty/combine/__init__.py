"""Several scores at once: one statistic of their p-values, calibrated again on the same held-out normals."""
