"""Baselines that learn the emoji world in equal core-minutes, and ours beside them.

budget.py      core-minutes of training, counted over resumptions, and the learning rate by them
run.py         a run: its folder, its checkpoints, its log, its scores
progress.py    bars
recipes.py     what can be trained
states.py      where random streams stand
pairs.py       pictures with true texts, beside others that are nearly true
contrast.py    the contrastive loss of two towers
clip.py        a CLIP of transformers, from nothing
lit.py         projections over a frozen EfficientNet-Lite0 and a frozen MiniLM
minilm.py      the frozen text encoder of two of the baselines
diffusion.py   text to image by a UNet of diffusers
ours.py        the recipe of the embedded model
scoring.py     what each of them gets right, and how long it takes
reranking.py   many drawings, of which a scorer keeps the best
table.py       scores of many runs as a table
figures.py     ... as a plot, and as a sheet of failures
"""
