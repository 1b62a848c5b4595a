"""Tiny checkpoints with random weights, built by transformers: every family, every task, a second at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mar_pipeline.tasks import TASKS

WORDS = ["the", "a", "an", "and", "or", "but", "in", "on", "of", "to", "is", "was", "were", "are", "he", "she", "it", "they", "room", "staff", "soup", "good", "bad", "awful", "great", "kind", "not", "Maria", "Lopez", "Madrid", "Berlin", "Anna", "Schmidt", "Siemens", "James", "Carter", "London", "Warsaw", "Daniel", "Tom", "Nora", "Lisbon", "baker", "shop", "works", "won", "who", "where", "when", "what", "does", "open", "library", "Mill", "Street", "Saturdays", "Sundays", "weekdays", "nine", "ten", "two", "once", "upon", "time", "old", "man", "morning", "door", "sky", "looked", "opened", "new", "factory", "near", "papers", "there", "reported", "week", "last", "moved", "from", "March", "call", "happened", "today", "nothing"]  # fmt: skip

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LABELS = {
    "seq_classification": ["negative", "positive"],
    "token_classification": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
}
AUTO = {task.name: task.auto_class for task in TASKS.values()}


def has(family: str, task: str) -> bool:
    """Whether transformers has a class of that family for that task."""
    import transformers as t

    return t.CONFIG_MAPPING[family] in getattr(t, AUTO[task])._model_mapping


def _named(tokenizer: Any, types: bool = False, **tokens: str) -> Any:
    """The tokenizer as transformers has it, with its special tokens; `types`: it gives segments."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if types
        else ["input_ids", "attention_mask"],
        model_max_length=64,
        **{f"{name}_token": token for name, token in tokens.items()},
    )


def _around(tokenizer: Any, single: str, pair: str) -> Any:
    """What puts special tokens around one text, and around two."""
    from tokenizers import processors

    parts = {part.partition(":")[0] for part in pair.split()} - {"$A", "$B"}
    tokens = [(part, tokenizer.token_to_id(part)) for part in sorted(parts)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)


def _letters() -> list[str]:
    return [chr(code) for code in range(33, 127)]


def _wordpiece(types: bool = True) -> Any:
    """BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = _letters()
    pieces = [*specials, *letters, *(word.lower() for word in WORDS), *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = _around(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return _named(tokenizer, types, unk="[UNK]", pad="[PAD]", cls="[CLS]", sep="[SEP]", mask="[MASK]")


def _bytes(specials: list[str]) -> Any:
    """GPT-2's, with these tokens first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return tokenizer


def _gpt2() -> Any:
    return _named(_bytes(["<|endoftext|>"]), bos="<|endoftext|>", eos="<|endoftext|>")


def _roberta() -> Any:
    from tokenizers import processors

    tokenizer = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    return _named(tokenizer, **names)


def _opt() -> Any:
    """Begins with the token that also ends a text."""
    tokenizer = _bytes(["<s>", "<pad>", "</s>"])
    tokenizer.post_processor = _around(tokenizer, "</s> $A", "</s> $A </s> $B")
    return _named(tokenizer, bos="</s>", eos="</s>", unk="</s>", pad="<pad>")


def _modernbert() -> Any:
    tokenizer = _bytes(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.post_processor = _around(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
    return _named(tokenizer, unk="[UNK]", cls="[CLS]", sep="[SEP]", pad="[PAD]", mask="[MASK]")


def _unigram(specials: list[str], unknown: str, single: str, pair: str) -> Any:
    """SentencePiece's, with these tokens first."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = {f"▁{word}": -5.0 for word in WORDS}
    pieces = {**dict.fromkeys(specials, 0.0), **words, "▁": -6.0, **dict.fromkeys(_letters(), -8.0)}
    tokenizer = Tokenizer(models.Unigram(list(pieces.items()), unk_id=specials.index(unknown)))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = _around(tokenizer, single, pair)
    return tokenizer


def _xlm_roberta() -> Any:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = _unigram(specials, "<unk>", "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    return _named(tokenizer, **names)


def _deberta() -> Any:
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = _unigram(specials, "[UNK]", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return _named(tokenizer, True, unk="[UNK]", pad="[PAD]", cls="[CLS]", sep="[SEP]", mask="[MASK]")


def _sentencepiece(prepend: bool) -> Any:
    """Llama 2's and Gemma's: pairs of pieces, with bytes for what has none. `prepend`: every text begins with a blank,
    which is left out when it is decoded."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    specials = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=specials, initial_alphabet=_letters(), show_progress=False
    )
    learner.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(learnt["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blanks, words = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks]) if prepend else blanks
    steps = [words, decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prepend else steps)
    tokenizer.post_processor = _around(tokenizer, "<s> $A", "<s> $A <s>:1 $B:1")
    return _named(tokenizer, bos="<s>", eos="</s>", unk="<unk>", pad="<pad>")


_BEHIND_PADDING = {**SHAPE, "max_position_embeddings": 66, "type_vocab_size": 1}
_GROUPED = {**SHAPE, "num_key_value_heads": 2}
_SLIDING = {**_GROUPED, "sliding_window": 16}
_GEMMA = {**_GROUPED, "head_dim": 8}
# As DeBERTa's third version has it: places relative to each other, in buckets.
_DEBERTA = {
    **SHAPE,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "pooler_hidden_size": 32,
}
# Every other layer looks no further than 8 tokens to either side.
_MODERNBERT = {
    **SHAPE,
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
    "local_attention": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}

_FAMILIES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "albert": (_wordpiece, {**SHAPE, "embedding_size": 32}),
    "bert": (_wordpiece, SHAPE),
    "bloom": (_gpt2, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "camembert": (_xlm_roberta, _BEHIND_PADDING),
    "deberta-v2": (_deberta, _DEBERTA),
    "distilbert": (_wordpiece, _DISTILBERT),
    "electra": (_wordpiece, {**SHAPE, "embedding_size": 32}),
    "falcon": (_gpt2, SHAPE),
    "gemma": (lambda: _sentencepiece(False), _GEMMA),
    "gemma3_text": (lambda: _sentencepiece(False), {**_GEMMA, "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gpt2": (_gpt2, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt_neox": (_gpt2, SHAPE),
    "llama": (_gpt2, _GROUPED),
    "longformer": (_roberta, {**_BEHIND_PADDING, "attention_window": 8}),
    "mistral": (lambda: _sentencepiece(True), _SLIDING),
    "mixtral": (lambda: _sentencepiece(True), {**_GROUPED, "num_local_experts": 4}),
    "modernbert": (_modernbert, _MODERNBERT),
    "mpnet": (_roberta, _BEHIND_PADDING),
    "opt": (_opt, {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi3": (lambda: _sentencepiece(True), _SLIDING),
    "qwen2": (_gpt2, _GROUPED),
    "qwen3": (_gpt2, {**_GROUPED, "head_dim": 8}),
    "roberta": (_roberta, _BEHIND_PADDING),
    "xlm-roberta": (_xlm_roberta, _BEHIND_PADDING),
}
FAMILIES = tuple(_FAMILIES)


def save(
    folder: Path, family: str, task: str, types: bool = True, *, tokenizer_of: str | None = None, **changes: Any
) -> Path:
    """A checkpoint of that family for that task in `folder`; `changes` go into its configuration. Without `types`
    BERT's tokenizer gives no segments, whatever its model takes. It has the tokenizer of the family `tokenizer_of`."""
    import torch
    import transformers as t
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    names = _FAMILIES[family][1]
    make = _FAMILIES[tokenizer_of or family][0]
    tokenizer = _wordpiece(types) if make is _wordpiece else make()
    if task in LABELS and "num_labels" not in changes:
        names = {**names, "id2label": dict(enumerate(LABELS[task]))}
        names["label2id"] = {name: index for index, name in names["id2label"].items()}
    if task == "text_generation" and family in ENCODERS:
        names = {**names, "is_decoder": True}
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
        for name in ("pad", "bos", "eos", "cls", "sep")
        if getattr(tokenizer, f"{name}_token", None) is not None
    }
    config = t.AutoConfig.for_model(family, **{"vocab_size": len(tokenizer), **names, **special, **changes})
    torch.manual_seed(1)
    model = getattr(t, AUTO[task]).from_config(config)
    with torch.no_grad():  # as transformers draws them the logits hardly differ, and nothing could be told from them
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family == "qwen2":
        # transformers 5 takes a class of its own for this family, whatever tokenizer_config.json says.
        t.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
