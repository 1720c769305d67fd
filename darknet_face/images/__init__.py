"""Images on the disk: decoding, file lists, near duplicates and splits, reading in batches, contact
sheets."""
