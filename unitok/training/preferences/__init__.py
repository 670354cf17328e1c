"""Learning from pairs of answers, by DPO (https://arxiv.org/abs/2305.18290).

in_data.py       whether data sets hold a pair
pairs.py         a pair of answers as sequences
reference.py     log-probabilities by the weights that a run begins with
batches.py       the batches of an update: pairs, and conversations beside them
loss.py          the loss
ranked.py        pairs of a model's own answers: the best and the worst of several samples
pair_records.py  such pairs as records, with the pictures and their codes
pair_journal.py  what there is of them while they are made
"""
