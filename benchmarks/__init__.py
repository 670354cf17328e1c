"""How fast the engine is: measured beside other programs, in one run, with targets.

measure.py      paired runs, ratios, the floor that memory sets
models.py       a null model, and random models of any size
requests.py     requests of given lengths
engines.py      engines in the middle of decoding, the engine's own work, arrivals
embedded.py     the embedded model's requests
attention.py    paged attention without an engine
setting.py      what the comparisons share
vllm_backend.py drawings in vLLM through our plugin
comparisons.py  what `make bench` compares, and with whom
driver.py       what the driver costs its callers
finetuning.py   conversations, and low-rank tuning of our model
gpu.py          the parts of scripts/bench_gpu.py, with gpu_shapes.py and gpu_finetuning.py
load.py         time and memory to load a folder
report.py       tables, the plot, the document
peers/          the other programs, behind our requests

The package is not in the wheel: run the scripts from a checkout, installed with --editable.
"""
