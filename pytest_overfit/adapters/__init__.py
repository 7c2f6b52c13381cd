"""One framework, one adapter. Only `adapters/<name>` imports that framework."""
