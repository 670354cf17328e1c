"""Other programs behind our requests: the baselines that the benchmarks compare with."""
