"""From calibrated maps to segmented lesions: which voxels, which clusters, which scans are unusual at all.

Everything here is of arrays, masks, affines and tables; no module knows a detector or a folder of maps.

``fdr``           Benjamini-Hochberg
``rules``         which voxels are flagged: by false discoveries, by p, by a quantile of normals, by a score
``cleaning``      what is done to flagged voxels
``clusters``      connected components, their sizes and places in mm
``controls``      what the calibration scans show: their largest clusters, their volumes, their maxima
``segmentation``  all of it for one map
``atlas``         which regions a cluster lies in
"""
