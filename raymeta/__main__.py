"""`python -m raymeta`: the same command where no script is installed, as in a cluster's job."""

from raymeta.cli.main import main

if __name__ == "__main__":
    main()
