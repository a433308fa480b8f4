"""Recurrent trainings as people write them: seven healthy ones, and the mistakes made in such code.

Each healthy module has a model (`make_model`), a loader whose batches say where their rows stand (`make_loader`,
`stamps_of`), a loop without Lightning (`train`, where that is natural), a LightningModule (`make_training`), and three
functions that call the checks: `follow` (reach), `watch` (StateAudit) and `shake` (probe).
"""
