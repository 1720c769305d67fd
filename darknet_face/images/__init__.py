"""Pictures on the disk: decoding, the file lists of each split and class, batches for inference,
and the sheets on which people look at them."""
