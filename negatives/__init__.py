"""What gen_neg_samples.py leans on: search services and their client, the checks that a picture
passes before it is a negative sample, and the collection on the disk."""
