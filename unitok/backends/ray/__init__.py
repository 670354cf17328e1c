"""`unitok batch --ray` and `unitok.run_dataset`: many replicas of a model share a batch.

Ray Data reads the input (`lines`), the driver cuts it into shards of consecutive lines (`shards`),
and each shard goes to one of several actors that hold a model (`replica`). A shard's results are
one file (`parts`), whose name tells which lines it holds, and which is there completely or not at
all (`output`). So a shard that is run twice, after a kill, is still there once. `run` brings this
together, and `cluster` joins or starts Ray.
"""
