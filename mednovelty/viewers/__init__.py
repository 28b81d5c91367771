"""What lets other programs show maps: 3D Slicer's scenes and segmentations, and a module for it."""
