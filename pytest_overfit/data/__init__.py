"""Reading containers as samples; foreign containers are recognised through `sys.modules`.

PYTEST_DONT_REWRITE
"""
