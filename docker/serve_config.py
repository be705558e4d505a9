"""Prints the model server's config: docker/serve.json with the token, memory limit and weights of the environment."""

import json
import os
from pathlib import Path

config = json.loads(Path(__file__).with_name("serve.json").read_text())
config["token"] = os.environ.get("MODEL_SERVER_TOKEN", "")
config["kv_cache_gb"] = float(os.environ.get("MODEL_SERVER_KV_GB") or 0)
config["weights"] = os.environ.get("MODEL_SERVER_WEIGHTS") or "full"
print(json.dumps(config))
