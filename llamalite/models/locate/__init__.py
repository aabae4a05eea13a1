"""From what the user calls a model to what it is: a file here, or where it would come from.

The one place where names are read, in this order: a path; a name of the user's own (an alias or
preset, then the configuration's); a short name of the catalog; a Hub reference, or the Hub's own
address of one; another address. What these don't find here is looked for among the installed
models, by whole name, and by a beginning that only one has (`store.spelled`). Uses no network. May
import `store`, `hub`, `names`, `config` and `errors`.
"""

from __future__ import annotations

from llamalite.models.locate.answers import HubTarget, Located, UrlTarget
from llamalite.models.locate.locating import locate

__all__ = ["HubTarget", "Located", "UrlTarget", "locate"]
