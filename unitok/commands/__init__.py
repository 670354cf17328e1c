"""Commands of the command line that need more than a page, a file each."""
