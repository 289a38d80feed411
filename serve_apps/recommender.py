"""The recommendation service for `serve run serve_apps/recommender.yaml`.

`args` in the YAML file is a `raymeta.config.serving.ServingConfig`; `user_config` its `tenants`.
"""

from raymeta.serve.app import build_app as build

__all__ = ["build"]
