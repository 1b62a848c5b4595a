"""Tiny checkpoints with random weights, built by transformers: every family, every task, seconds at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# fmt: off
WORDS = ["the", "a", "an", "and", "or", "but", "in", "on", "of", "to", "is", "was", "were", "are", "he", "she", "it", "they", "room", "staff", "soup", "good", "bad", "awful", "great", "kind", "not", "Maria", "Lopez", "Madrid", "Berlin", "Anna", "Schmidt", "Siemens", "James", "Carter", "London", "Warsaw", "Daniel", "Tom", "Nora", "Lisbon", "baker", "shop", "works", "won", "who", "where", "when", "what", "does", "open", "library", "Mill", "Street", "Saturdays", "Sundays", "weekdays", "nine", "ten", "two", "once", "upon", "time", "old", "man", "morning", "door", "sky", "looked", "opened", "new", "factory", "near", "papers", "there", "reported", "week", "last", "moved", "from", "March", "call", "happened", "today", "nothing"]

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
AUTO = {
    "seq_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "text_generation": "AutoModelForCausalLM",
}


def _wordpiece(types: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(33, 127)]
    pieces = [*specials, *dict.fromkeys([*letters, *(w.lower() for w in WORDS), *(f"##{c}" for c in letters)])]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"] if types else ["input_ids", "attention_mask"],
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def _bytes(roberta: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    if not roberta:
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, model_max_length=64)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=64,
    )


def save(folder: Path, family: str, task: str, types: bool = True, **changes: Any) -> Path:
    """A checkpoint of that family for that task in `folder`; `changes` go into its configuration. Without `types` its
    tokenizer gives no segments, whatever its model takes."""
    import torch
    import transformers as t

    if family in ("roberta", "xlm-roberta", "mpnet"):
        tokenizer, shape = _bytes(True), {**SHAPE, "max_position_embeddings": 66, "type_vocab_size": 1}
    elif family in ("gpt2", "llama", "qwen2", "gpt_neox", "opt"):
        tokenizer, shape = _bytes(False), dict(SHAPE)
    else:
        tokenizer, shape = _wordpiece(types), dict(SHAPE)
    names = {
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        "electra": {**shape, "embedding_size": 32},
        "albert": {**shape, "embedding_size": 32},
        "llama": {**shape, "num_key_value_heads": 2},
        "qwen2": {**shape, "num_key_value_heads": 2},
        "opt": {**shape, "ffn_dim": 64, "word_embed_proj_dim": 32},
    }.get(family, shape)
    if task in LABELS and "num_labels" not in changes:
        names = {**names, "id2label": dict(enumerate(LABELS[task]))}
        names["label2id"] = {name: index for index, name in names["id2label"].items()}
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
        for name in ("pad", "bos", "eos", "cls", "sep")
        if getattr(tokenizer, f"{name}_token", None) is not None
    }
    config = t.AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**names, **special, **changes})
    torch.manual_seed(1)
    model = getattr(t, AUTO[task]).from_config(config)
    with torch.no_grad():  # as transformers draws them the logits hardly differ, and nothing could be told from them
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
