"""Tiny random checkpoints of Whisper and MusicGen, with the tokenizers that they need."""

from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    EncodecConfig,
    EncodecFeatureExtractor,
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    T5Config,
    T5Tokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from tests.parity.tiny_perception import save_model

PIECE = 2  # seconds that the tiny Whisper hears at once
LETTERS = set("abcdefghijklmnopqrstuvwxyz")
SPECIAL = (
    "<|endoftext|> <|startoftranscript|> <|en|> <|de|> <|translate|> <|transcribe|> "
    "<|startofprev|> <|nospeech|> <|notimestamps|>"
).split()
TIMES = [f"<|{i * 0.02:.2f}|>" for i in range(PIECE * 50 + 1)]
RATE, FRAMES = 800, 100  # samples and frames in a second of the tiny MusicGen


def save_whisper(folder: Path, multilingual: bool = True) -> Path:
    """A random Whisper that writes letters."""
    symbols = sorted(ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIAL})
    tokenizer.add_tokens(TIMES)
    vocabulary_ids: dict[str, int] = tokenizer.get_vocab()
    ids = {token: vocabulary_ids[token] for token in (*SPECIAL, *TIMES)}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        max_source_positions=PIECE * 50,
        max_target_positions=24,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
    )
    names = {
        "is_multilingual": True,
        "lang_to_id": {name: ids[name] for name in ("<|en|>", "<|de|>")},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")},
    }
    generation = GenerationConfig(
        max_length=16,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=[i for symbol, i in vocabulary.items() if symbol not in LETTERS],
        **(names if multilingual else {"is_multilingual": False}),
    )
    hearing = WhisperFeatureExtractor(feature_size=8, chunk_length=PIECE)
    processor = WhisperProcessor(hearing, tokenizer)
    return save_model(folder, WhisperForConditionalGeneration, config, processor, generation)


def save_musicgen(folder: Path, channels: int = 1) -> Path:
    """A random MusicGen of a hundred frames in a second."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in sorted(LETTERS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    text = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    codec = EncodecConfig(
        sampling_rate=RATE,
        audio_channels=1,
        num_filters=4,
        upsampling_ratios=[4, 2],
        codebook_size=32,
        codebook_dim=16,
        hidden_size=16,
        num_lstm_layers=1,
        target_bandwidths=[4.0],
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=32,
        num_codebooks=4 * channels,
        audio_channels=channels,
        hidden_size=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=32,
        bos_token_id=32,
    )
    config = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    generation = GenerationConfig(pad_token_id=32, bos_token_id=32, decoder_start_token_id=32)
    extractor = EncodecFeatureExtractor(feature_size=channels, sampling_rate=RATE)
    processor = MusicgenProcessor(extractor, tokenizer)
    return save_model(folder, MusicgenForConditionalGeneration, config, processor, generation)
