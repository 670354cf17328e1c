"""CLIP, captioners, diffusion, encoders: thin adapters over well-kept libraries.

`protocols.py` says what each kind can do, `opening.py` finds the adapter of a folder. The adapters
need the extra `baselines`. Some classes need torchvision, and with it an environment of their own.
"""
