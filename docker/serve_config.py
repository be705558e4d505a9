"""Prints the model server's config: docker/serve.json with the token of the environment."""

import json
import os
from pathlib import Path

config = json.loads(Path(__file__).with_name("serve.json").read_text())
print(json.dumps(config | {"token": os.environ.get("MODEL_SERVER_TOKEN", "")}))
