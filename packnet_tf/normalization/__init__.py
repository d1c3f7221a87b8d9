"""Makes the moving statistics of batch normalisation match the current network.

In training, batch normalisation uses the statistics of each batch; in inference, it uses moving
averages of them. The averages' momentum is meant for long runs: with the 0.999 of
`keras.applications`, an average needs thousands of steps to forget its initial value. A small task
has 20 to 60 steps per epoch. Two corrections work for any momentum:

- While a task trains, the momentum grows with the number of steps since the task began or was
  pruned (`following.py`). Validation then uses statistics of the current network, without
  additional data.
- Before a commit, the statistics are measured on the training data (`statistics.py`), if these are
  available (`seen_data.py`, `batches.py`).
"""
