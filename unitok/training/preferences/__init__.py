"""Learning from pairs of answers, by DPO (https://arxiv.org/abs/2305.18290).

pairs.py      a pair of answers as sequences
reference.py  log-probabilities by the weights that a run begins with
batches.py    the batches of an update: pairs, and conversations beside them
loss.py       the loss
"""
