"""Reinforcement learning: what a model answers and draws is rewarded, and it learns from that.

prompts.py         what is asked: JSON lines, and the order in which they come
rollouts.py        samples of prompts, by the engine, with their log-probabilities
rollout_model.py   the model that makes them: a copy whose weights follow those in training
rewards.py         what a reward is, and how several are summed up
reward_names.py    rewards by their names: those that come with unitok, and entry points
exact_answer.py    the reward of an answer that is right
own_caption.py     the reward of a drawing that the model itself captions as it was asked
match_score.py     the reward of a drawing that matches its prompt, by a CLIP
advantages.py      rewards of a group, set against each other
policy.py          log-probabilities of rollouts, with gradients
grpo_loss.py       the loss: clipped ratios, the divergence from the base model
rollout_updates.py rounds of rollouts, and the batches of their updates
round_report.py    what a round was like, for the log
round_trainer.py   the updates of a round as one step
run.py             a run, from a recipe to a folder; plan.py tells of it
"""
