"""What the scripts share: the conventions of the command line.

Every script wraps its ``main`` in ``cli``: a failure becomes one line on stderr and an exit code.
The package ``darknet_face`` never imports this module, so that it can be installed without it.
"""

from darknet_face.console import (
    HelpFormatter,
    UserError,
    cli,
    number_type,
    print_error,
    printable,
    progress,
    warn,
)

__all__ = ["HelpFormatter", "UserError", "cli", "number_type", "print_error", "printable",
           "progress", "warn"]
