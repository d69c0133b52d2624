"""`unnoise compare` and `unnoise table`: variants of a request from the same noise, measured in the same way.

compare.py  ddim.py  guidance.py  inversion.py  ddpm.py     the commands: which variants, and which table of them
options.py     the options that they have in common, and how lists are parsed
comparison.py  loads the model and runs the variants with a progress bar
output.py      writes the folder of a table and prints it
"""
