"""The commands of `unnoise`: where each one is, its line in the list, and the text below its options."""

from __future__ import annotations

COMMANDS = {  # name: (module:function in unnoise.cli, help)
    "demo": ("demo:demo", "Train, sample and evaluate on pictures that come with the package; write a report."),
    "train": ("train:train", "Train a diffusion model or a classifier on your pictures."),
    "sample": ("sample:sample", "Sample pictures from a model."),
    "evaluate": ("evaluate:evaluate", "Evaluate a model: sample quality, alignment with captions, likelihood."),
    "compare": ("tables.compare:compare", "Compare samplers from the same noise, and recommend one."),
    "table": ("", "Reproduce tables of papers with your own model."),
    "nearest": ("nearest:nearest", "Show generated pictures beside the nearest real ones."),
    "invert": ("invert:invert", "Invert a picture to the noise that it is sampled from."),
    "interpolate": ("interpolate:interpolate", "Interpolate between pictures, in strips and planes."),
    "vary": ("vary:vary", "Sample variations that share the first steps of sampling."),
    "compress": ("compress:compress", "Compress a picture to a file of a few bytes with a model."),
    "decompress": ("decompress:decompress", "Decompress a picture from such a file or its first part."),
    "info": ("info:info", "Show how a picture was made, or describe a run, a model or a weights file."),
    "runs": ("runs:runs", "List the runs in a folder: how far each is, its loss and its size."),
    "data": ("data:data", "Show statistics and a contact sheet of a data set."),
    "presets": ("presets:presets", "List the presets for training, or print one as YAML."),
    "export": ("export:export", "Export a model as a folder that diffusers loads."),
    "bench": ("bench:bench", "Measure a model on this machine: time and memory by precision and batch."),
    "doctor": ("doctor:doctor", "Check the machine: hardware, speed of number formats, missing packages."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
}

TABLES = {  # name of a file in tables/ and of the function in it: help
    "ddim": "DDIM: sample quality by number of steps and eta.",
    "ddpm": "DDPM: six trainings, by prediction, variance and loss.",
    "guidance": "Guidance: fidelity against diversity by guidance scale.",
    "inversion": "Inversion: reconstruction error after inverting and sampling again.",
}

EARLIER = {  # options of earlier versions, which still work and are not listed by --help: today's name
    "--grid-spacing": "--timestep-spacing",
    "--grids": "--timestep-spacing",
    "--threshold": "--dynamic-threshold",
    "--judge": "--evaluator",
    "--etas": "--eta",
    "--scales": "--guidance",
}

EPILOGUE = """\
First steps:
  unnoise demo                              takes some minutes, writes a report
  unnoise train fashion
  unnoise sample runs/00001-fashion --seeds 0-63 --grid grid.png
  unnoise info grid.png

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted,
143 terminated (a training writes a checkpoint before 130 and 143).
Environment: NO_COLOR=1 turns colours off, UNNOISE_TRACEBACK=1 prints the
traceback of an error."""


DETAILS = {  # text below a command's options
    "sample": """\
Examples:
  unnoise sample runs/00001-fashion --seeds 0-63 --grid grid.png
  unnoise sample runs/00001-fashion --label sneaker --seeds 0-7 --guidance 2
  unnoise sample runs/00001-emoji --prompt "a cat" --guidance 3

A picture depends only on its seed, its conditions and the settings: the same
command makes the same picture, and `unnoise info PICTURE` prints it.""",
    "info": """\
Examples:
  unnoise info grid.png
  unnoise info grid.png --command
  unnoise info runs/00001-fashion --json

Weights are described by their header and are not loaded.""",
    "compress": """\
Example:
  unnoise compress picture.png -o picture.un -m runs/00001-fashion --bits 0.2

The method is reverse channel coding with a diffusion model. Compression is
lossy: the command prints the error at each rate.""",
    "decompress": """\
Example:
  unnoise decompress picture.un -o picture.png -m runs/00001-fashion

A file that is cut off gives a coarser picture. A damaged file is an error.""",
    "export": """\
Example:
  unnoise export runs/00001-fashion exported

The folder contains unet/, scheduler/ and, if they are CLIP models, the text
encoders and their tokenizers. The command prints how diffusers loads it.""",
    "bench": """\
Example:
  unnoise bench runs/00001-fashion

The fastest precision is stored for this machine and networks of the same
architecture, and the precision "auto" uses it from then on.""",
    "completion": """\
For bash:
  unnoise completion bash >> ~/.bashrc

For zsh and fish, write the script to a file of their completions folder.""",
}
