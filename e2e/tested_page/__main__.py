"""Write docs/tested.md."""

import sys

from tested_page.tree import PAGE, page_of_this_checkout


def main() -> int:
    """Write the page; say which mark is wrong."""
    try:
        PAGE.write_text(page_of_this_checkout(), encoding="utf-8")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
