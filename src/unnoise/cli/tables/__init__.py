"""`unnoise compare` and `unnoise table`: many ways to draw from one model, the same noise, one measure.

compare.py  ddim.py  guidance.py  inversion.py  ddpm.py     the commands
asked.py    the options that they share, and how they are read
ways.py     each way drawn and measured, with a bar over all
kept.py     what is left in the folder and said at the end
"""
