"""From scores to p-values: what held-out normals score, and how often they score as high."""
