"""What the server keeps on disk: files of its users, and their batches.

`file_store` keeps files, each a `stored_file`, and `batch_store` keeps what is known of batches;
`records` reads both again.
`lines` reads the lines of a batch, `work` runs one batch by the code of `unitok batch`, and `queue`
says which runs when. `folder` opens all of it.
"""
