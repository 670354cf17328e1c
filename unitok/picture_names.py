"""Which files are pictures, by their names."""

from unitok.pictures import FORMATS

# What a file is, its content says when it is opened.
PICTURE_SUFFIXES = frozenset({"jpg", "tif", *(name.lower() for name in FORMATS)})
