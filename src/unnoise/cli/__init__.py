"""The command line: thin commands over the library, which import torch only after their arguments are checked.

commands.py  the list of commands and their help     main.py      the app, its errors and exit codes
console.py   results, messages, tables, exit codes   progress.py  one bar, or plain lines
options.py   options made from the fields of settings
tables/      `compare` and the papers' tables; every other file is the command of its name
"""
