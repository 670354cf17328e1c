"""Linear layers whose weights have few bits: less memory, and less to read in each step.

`weights.py` says what is quantised and does it, while a checkpoint is read or of a whole model.
`int8.py` and `int4.py` have the formats and their kernels, `linear.py` what their layers share.
"""
