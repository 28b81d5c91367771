"""What the module does without windows: plain Python 3.9 and newer, without 3D Slicer, Qt or mednovelty."""
