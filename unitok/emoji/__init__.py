"""The small world of the default model: pictures composed of emoji, and what can be said of them.

sprites.py          the objects as little pictures
scenes.py           what a picture holds
split.py            which combinations are never seen in training
sampler.py          random scenes of one split
rendering.py        pictures of scenes
captions.py         the grammar: captions, prompts, questions, and reading them back
checker.py          what a finished picture shows
evaluation.py       how well a model reads and draws held-out scenes
text_tokenizer.py   training the text tokenizer
image_tokenizer.py  training the image tokenizer
sample.py           one sequence that the model learns from
samples.py          random ones, in an endless stream
pretraining.py      training the model
new_objects.py      eight objects more, to fine-tune on
export.py           writing the trained model as a folder
"""
