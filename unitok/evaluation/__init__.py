"""What a model gets right: generic measures, by the API that users call.

A data set's own scores are beside the data set: `unitok.emoji.evaluation` is one.
"""
