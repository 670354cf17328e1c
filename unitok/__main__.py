"""`python -m unitok` is the command `unitok`, for where the command is not on the path."""

from unitok.cli import main

if __name__ == "__main__":
    main()
