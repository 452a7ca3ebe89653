import sys

from mupvss.cli import main

sys.exit(main())
