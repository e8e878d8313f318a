"""`python -m optctl.cli`."""

import sys

from optctl.cli import main

sys.exit(main())
