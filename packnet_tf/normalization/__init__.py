"""Moving statistics of batch normalisation that match the committed network."""
