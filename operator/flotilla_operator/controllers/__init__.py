"""One controller a kind: observe, plan, apply. The only package that knows kopf."""
