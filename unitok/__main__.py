"""Lets `python -m unitok` run the command `unitok`, in case it is not on the path."""

from unitok.cli import main

if __name__ == "__main__":
    main()
