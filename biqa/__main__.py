"""`python -m biqa` is the command `biqa`."""

from biqa.command import main

if __name__ == "__main__":
    main()
