"""``python -m llmopt``: the command line, where no ``llmopt`` is on the path."""

from llmopt.cli.app import main

if __name__ == "__main__":
    main()
