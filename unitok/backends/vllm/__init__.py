"""Janus in vLLM, as a plugin that an unpatched vLLM finds by itself.

A guided drawing has two prompts of one length. One request of vLLM carries both, as more heads:
each layer attends with twice as many, linear layers see two rows for a token, and an embedding
holds those of both streams. All that a row needs follows from its token id, so prefix caching,
chunked prefill, preemption and tensor parallelism are vLLM's own.

Where vLLM is not installed, a type checker takes this folder for it; so the files switch two of its
reports off.

versions.py    which vLLM this is known to work with
plugin.py      what vLLM calls in each of its processes
layout.py      the ids of a request, and those of its second stream
drawings.py    a drawing as a prompt and parameters of vLLM
checkpoint.py  finds a folder that vLLM is to serve, and refuses others
settings.py    what vLLM is told of the model's sizes
config.py      DeepSeek's own config.json for transformers' AutoConfig
decoder.py     vLLM's Llama over two streams
model.py       the model: embeddings, decoder, heads, pictures that are read
weights.py     fills it from either format of a Janus
pictures.py    our preprocessing as vLLM's multimodal processor
guidance.py    mixes the two streams' logits for each request
chat_template.py  what vLLM's chat endpoint writes around messages
readings.py    a prompt with pictures that are read

A `Model` runs on vLLM by these:

options.py     what `unitok.load` takes for vLLM alone
opening.py     starts vLLM's processes, and opens what stays in this one
engine.py      vLLM's engine behind the protocol of ours
request.py     our requests as vLLM's
outputs.py     vLLM's outputs as ours
counting.py    what vLLM tells of its steps
loop.py        an event loop in a thread
endpoint.py    our endpoint of pictures in `vllm serve`
"""
