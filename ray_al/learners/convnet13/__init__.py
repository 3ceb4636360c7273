"""The 13-layer convolutional network of "Rethinking deep active learning" and the ways in which it is trained."""
