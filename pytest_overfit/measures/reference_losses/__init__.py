"""The two losses a batch is judged between: of the best constant output and of the best free outputs."""
