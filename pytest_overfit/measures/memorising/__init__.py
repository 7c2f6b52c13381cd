"""One batch is trained on until it is memorised: the loop, the criteria of a fit, what is read on the way."""
