"""Public suites, on data that people have on disk, in their official formats."""
