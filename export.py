"""Export the network to the engines that others use, each export checked before it is in place.

    python export.py all           # everything below, then the table
    python export.py --help        # each of them, and what is checked

What it does is in darknet_face/exporters/: a module for each format.
"""

from darknet_face.exporters.command import main

if __name__ == "__main__":
    main()
