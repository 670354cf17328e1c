"""Other programs behind our requests: what the benchmarks compare with."""
