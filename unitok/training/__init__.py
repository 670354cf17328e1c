"""Training of unified models: everything that does not depend on a particular data set.

trainer.py         one update: losses, gradients, clipping, an optimiser step; exact resumption
loop.py            many updates: progress, logs, checkpoints, evaluation on the way
sequences.py       what is learned from: token ids with pictures, and which of them are targets
packing.py         sequences one behind the other, as the flat rows of a batch
hidden_states.py   such a batch through the model
targets.py         its text targets and its image targets
cross_entropy.py   the loss of each token in little memory
losses.py          what a loss function returns
unified_loss.py    cross-entropy over text tokens and over image tokens
log_probabilities.py  those of given tokens, as the engine reports them
optimisers.py      Muon for matrices and AdamW for the rest
schedule.py        learning rates by step
lora.py            low-rank adapters beside frozen weights, and their files
checkpoints.py     files from which a run goes on
log.py, curves.py  the records of a run, and a plot of them
initialisation.py  weights of a model that begins from nothing
image_tokenizer/   image tokenizers: new ones, and those of Janus and LlamaGen further

A recipe (`unitok.emoji.pretraining` is one) brings the data, the sizes and the evaluation.
"""
