"""Anomalies planted in normal samples: a shape, an appearance, and in words what both take to be abnormal.

``Host``      samples, where their tissue is, how far apart their voxels are    ``host``
``Shapes``    where: soft profiles of blobs, borders, real outlines             ``shapes``, ``outlines``
families      what changes there: plug-ins of the group ``anomalies``           ``families``, ...
``Mixture``   several families by weight, and one held out to validate on       ``mixture``

A detector that learns from planted anomalies knows what was planted, and nothing else: each family says in
``describe`` what that is.
"""
