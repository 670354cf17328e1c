"""The small world of the default model: pictures composed of emoji, and what can be said of them.

sprites.py    the forty objects as little pictures
scenes.py     what a picture holds, how scenes are drawn at random and rendered
split.py      which combinations are never seen in training
captions.py   the grammar: captions, prompts, questions, and reading them back
checker.py    what a finished picture shows
"""
