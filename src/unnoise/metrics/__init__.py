"""Measures of sample quality: features of pictures, and distances between sets of features."""
