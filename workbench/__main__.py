"""`python -m workbench` is the command line, for whoever has no `workbench` on the path."""

from workbench.cli import main

if __name__ == "__main__":
    main()
