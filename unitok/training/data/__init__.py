"""Data sets of conversations: from a file to the sequences that a model learns.

conversations.py     a record of a data set, parsed and checked
preferences.py       a record of two answers, one of which is better
picture_codes.py     the codes of a picture in a record
sources.py           what a data set offers, and the choice of how a path is read
json_lines.py        JSON lines, by an index of their places
tars.py              WebDataset tars; tar_members.py finds the members in them
hugging_face.py      data sets of the library `datasets`: saved folders and parquet
caption_pairs.py     a picture with a caption as a conversation, to be read or to be painted
picture_folder.py    a folder of pictures with captions as JSON lines
order.py             shuffled orders, and chances that depend on their keys alone
stream.py            the order of all conversations: epochs, mixing, exact resumption
shares.py            the conversations of an update, shared out between ranks
text_sequences.py    answers and their prompts as sequences
painted_sequences.py pictures to be painted and their prompts as sequences
sequence_maker.py    a conversation as sequences
code_cache.py        picture codes that are computed once and kept
checking.py          what is wrong with a data set, and what is in it
sheet.py             samples of a data set in one picture
"""
