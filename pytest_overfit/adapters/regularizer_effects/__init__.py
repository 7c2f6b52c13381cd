"""What a regulariser does to a model in training: experiments on numpy arrays, the same for every framework.

An adapter finds the regularisers and gives the primitives: a step, a place's answer to an input, a pass.
"""
