"""One readable program per kind of training."""
