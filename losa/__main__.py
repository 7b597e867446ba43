"""``python -m losa`` is ``losa``."""

from losa.cli import main

if __name__ == "__main__":
    main()
