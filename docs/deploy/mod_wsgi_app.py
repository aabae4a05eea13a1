"""What mod_wsgi loads: the app under the name it looks for."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
os.environ.setdefault("LLAMALITE_PYTHON", os.path.join(sys.prefix, "bin", "python"))

from wsgi import app as application  # noqa: F401
