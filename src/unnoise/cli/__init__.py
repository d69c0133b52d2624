"""The command line: thin commands over the library, each answered before torch is imported where it can be.

main.py      the app, its errors and exit codes      options.py   options made from the fields of settings
train.py  sample.py  evaluation/evaluate.py  inspect.py  export.py  demo.py     the commands
tables/      `compare` and the papers' tables
console.py   what is said, and where                 progress.py  one bar, or plain lines
io/pictures.py  grids, metadata, GIF and MP4            evaluation/report.py    the page that `unnoise demo` writes
"""
