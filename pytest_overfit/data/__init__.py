"""Reading containers as samples; foreign containers are recognised through `sys.modules`."""
