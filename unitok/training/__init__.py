"""Training of unified models: everything that does not depend on a particular data set.

run.py             a fine-tuning run, from a recipe to a folder that `unitok.load` opens
recipe.py          what such a run is told; recipe_file.py reads and writes it as TOML
base.py, parts.py  the model that it begins from, and which parts of it are trained
setting_up.py      the other parts of a run, made as the recipe says; plan.py tells of them
data/              from files of conversations to sequences
updates.py         the batches of each update; ranks share the work
preferences/       learning from pairs of answers, by DPO
ranks.py           the processes of a run: one, DDP or FSDP2, by accelerate
held_out.py        losses of what is not learned
samples.py         what the model draws and says on the way
progress.py        the bar, log.jsonl, TensorBoard and the plot
run_checkpoints.py folders from which any number of ranks go on; run_state.py says what is in them
result.py          the tuned model, or its adapters, as a folder
ema.py             an average of the trained weights
kept_weights.py    the trained weights as they were, to compare with
trainer.py         one update: losses, gradients, clipping, an optimiser step; exact resumption
loop.py            many updates: progress, logs, checkpoints, evaluation on the way
sequences.py       what is learned from: token ids with pictures, and which of them are targets
packing.py         sequences one behind the other, as the flat rows of a batch
hidden_states.py   such a batch through the model
targets.py         its text targets and its image targets
cross_entropy.py   the loss of each token in little memory
losses.py          what a loss function returns
unified_loss.py    cross-entropy over text tokens and over image tokens
finetuning_loss.py the same with the numbers of tokens, for runs of several batches and ranks
log_probabilities.py  those of given tokens, as the engine reports them
sampling_shape.py  what temperature and filters make of logits
optimisers.py      Muon for matrices and AdamW for the rest
schedule.py        learning rates by step
lora.py            low-rank adapters beside frozen weights, and their files
checkpoints.py     files from which the runs of the emoji world go on
log.py, curves.py  the records of a run, and a plot of them
initialisation.py  weights of a model that begins from nothing
reinforcement/     reinforcement learning: rollouts by the engine, rewards, GRPO
image_tokenizer/   image tokenizers: new ones, and those of Janus and LlamaGen further

extra.py           libraries that only training needs

`unitok.emoji.pretraining` is a run of its own, with its data, sizes and evaluation.
"""
