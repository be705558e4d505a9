"""Prints the model server's config: docker/serve.json with the token and the memory limit of the environment."""

import json
import os
from pathlib import Path

config = json.loads(Path(__file__).with_name("serve.json").read_text())
config["token"] = os.environ.get("MODEL_SERVER_TOKEN", "")
config["kv_cache_gb"] = float(os.environ.get("MODEL_SERVER_KV_GB") or 0)
print(json.dumps(config))
