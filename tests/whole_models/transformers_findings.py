"""The whole-model checks over small architectures of ``transformers``, drawn at random.

``python tests/whole_models/transformers_findings.py`` (``tox -e transformers``) builds each
model of ``MODELS`` from its config class, tiny and without downloading anything, runs every
check that applies, on inputs that nobody declares, and compares what they report with
``transformers_findings.txt``. ``--update`` writes that file; its header, kept as it is, explains
each kind of finding. ``findings.py`` has the rest of the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from pytest_paramcheck import ModelCase

# The folder of the script is what a script finds first; its parents are not on the path.
try:
    from .findings import look, main
except ImportError:
    from findings import look, main  # type: ignore[no-redef]

FILE = Path(__file__).with_name("transformers_findings.txt")

#: Sizes by the many names that configs have for them; a config takes those it knows.
SIZES: dict[str, Any] = {
    "vocab_size": 67,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 16),
    **dict.fromkeys(("word_embed_proj_dim", "decoder_hidden_size", "n_embed"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 4,
    "d_kv": 4,
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim"), 24),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 24),
    "shared_expert_intermediate_size": 24,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "image_size": 16,
    "patch_size": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "use_cache": False,
}

#: Model types by the head they get: those whose tiny config builds and runs as it is.
TYPES: dict[str, str] = {
    "causal": """
        afmoe apertus arcee aria_text bailing_hybrid bart beam bert bert-generation big_bird
        bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom camembert cohere cohere2
        cohere2_moe ctrl cwm data2vec-text diffllama doge electra ernie ernie4_5 ernie4_5_moe
        exaone4 exaone_moe falcon_mamba flex_olmo flint gemma gemma2 gemma3_text glm glm4
        glm4_moe gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss granite granite_swa
        granitemoe granitemoe_swa granitemoeshared helium hrm_text hunyuan_v1_dense
        hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2 jamba jetmoe kolibri1
        laguna lfm2 lfm3 llama llama4_text mamba marian mbart megatron-bert mellum mimo_v2_flash
        minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral
        modernbert-decoder moshi mpt mvp nanochat nemotron olmo olmo2 olmo3 olmo_hybrid olmoe
        openai-gpt opt pegasus persimmon phi phi3 phimoe plbart qwen2 qwen2_moe qwen3
        qwen3_5_text qwen3_moe recurrent_gemma rembert roberta roberta-prelayernorm roformer
        rwkv seed_oss smollm3 solar_open stablelm starcoder2 trocr vaultgemma whisper xglm xlm
        xlm-roberta xlm-roberta-xl xlstm
    """,
    "seq2seq": """
        led longt5 m2m_100 mt5 nllb-moe pegasus_x seamless_m4t seamless_m4t_v2
        switch_transformers t5 umt5
    """,
    "masked": """
        albert convbert deberta deberta-v2 distilbert esm eurobert flaubert fnet gte ibert
        jina_embeddings_v3 layoutlm longformer mobilebert modernbert mpnet mra nomic_bert
        nystromformer squeezebert tapas ultrabert yoso
    """,
    "image": """
        beit data2vec-vision dinov2 dinov2_with_registers ijepa vit vit_msn
    """,
    "base": """
        canine clip_text_model dpr granite_docling_text higgs_audio_v2 molmo2_text
        muse_glimmer_text openai_privacy_filter qwen3_vl_moe_text qwen3_vl_text
        sam3_lite_text_text_model splinter tipsv2_text_model visual_bert
    """,
}
HEADS = {
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked": "AutoModelForMaskedLM",
    "image": "AutoModelForImageClassification",
    "base": "AutoModel",
}


def config_of(model_type: str) -> Any:
    """Return the tiny config of a model type."""
    cls = getattr(transformers, CONFIG_MAPPING_NAMES[model_type])
    known = cls()
    return cls(**{name: size for name, size in SIZES.items() if hasattr(known, name)})


def case_of(model_type: str, head: str) -> ModelCase:
    """Return the case of a model type: nothing is declared."""
    auto = getattr(transformers, HEADS[head])

    def build() -> nn.Module:
        model: nn.Module = auto.from_config(config_of(model_type))
        return model

    return ModelCase(build, name=f"{model_type}-{head}")


MODELS = {f"{kind}-{head}": (kind, head) for head, kinds in TYPES.items() for kind in kinds.split()}


def look_at(model: str, seed: int) -> dict[str, Any]:
    """Run the checks of one model."""
    transformers.logging.set_verbosity_error()
    return look(case_of(*MODELS[model]), seed)


if __name__ == "__main__":
    sys.exit(main(FILE, list(MODELS), look_at))
