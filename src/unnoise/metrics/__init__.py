"""How good drawn pictures are: distances between sets of features, and the features themselves."""
