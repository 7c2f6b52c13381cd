"""Why a model cannot memorise its batch: one thing is changed, it is trained again, and the change that cures is named.

A fault is suspected by what costs nothing: the curve of the loss and what the program is made of. Each suspicion names
one change. A diagnosis is `proved` where the changed program memorises the batch, `shown` where the state of the
program breaks a rule that every healthy one keeps, `likely` where only signs speak for it.
"""
