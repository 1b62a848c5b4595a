"""What transformers does once a process, and imports for nearly every model. The workers' server imports this."""

from __future__ import annotations

from contextlib import suppress

import transformers.generation.utils
import transformers.models.bert.modeling_bert  # noqa: F401

# A table of a thousand compiled patterns, which transformers 5 makes when it loads its first model.
with suppress(ImportError):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("bert")
