"""``python -m mednovelty``."""

from mednovelty.cli import main

if __name__ == "__main__":
    main()
