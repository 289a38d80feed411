"""Routes in the shapes of other products, so that their callers need not change.

Each module maps one product's requests to the same parts of `Service` as `/v1`, so that keys,
tenants, limits and errors are those of every route. What a product has and this service has not is
refused or left out by name, in the module's opening and in `serve_apps/README.md`.
"""
