"""Print the requirements of extras in pyproject.toml, one quoted line for a shell: extra.py demo test"""

import shlex
import sys
import tomllib
from pathlib import Path

extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
needed = [item for extra in sys.argv[1:] for item in extras[extra] if not item.startswith("slabcache[")]
print(shlex.join(needed).replace("'", ""))
