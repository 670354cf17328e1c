"""Training of image tokenizers, as VQGAN (https://arxiv.org/abs/2012.09841), LlamaGen
(https://arxiv.org/abs/2406.06525) and ViT-VQGAN (https://arxiv.org/abs/2110.04627) are trained.

run.py            a run, from its options to what it writes
options.py        what a run is told
recipe.py         the same as TOML, for `unitok train`
bases.py          a Janus's folder, a file of LlamaGen's, or new weights; and writing them back
pictures.py       the pictures: found, cropped, in order
trained.py        the networks of a run: which parts are trained, the average of the weights
loss.py           the sum of all losses
perceptual.py     the distance of pictures in features
features.py       the networks whose features are compared
adversarial.py    losses of the discriminator and of the decoder, and the adaptive weight
discriminator.py  PatchGAN
code_use.py       use and perplexity of the codebook; dead codes move to latents
report.py         PSNR, code use, and a sheet of pictures beside their reconstructions
"""
