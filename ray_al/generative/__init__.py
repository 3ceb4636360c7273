"""Models of the images themselves: no labels in, a space or a generator out."""
