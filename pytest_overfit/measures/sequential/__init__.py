"""Answers over seeds that hold although observations come in one by one."""
