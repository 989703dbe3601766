"""The fields of a model's config.json from which its memory is computed, by their names in model families.

The operator reads no other fields (a test compares), and together they fit into a termination message.
"""

from typing import Final

CONFIG_FIELDS: Final = frozenset(
    """
    model_type text_config llm_config language_config dtype torch_dtype tie_word_embeddings
    num_hidden_layers n_layer n_layers num_layers hidden_size n_embd d_model vocab_size padded_vocab_size
    num_attention_heads n_head n_heads num_key_value_heads num_kv_heads n_head_kv multi_query_group_num
    multi_query new_decoder_architecture attn_config kv_n_heads head_dim hidden_size_per_head kv_channels
    intermediate_size ffn_hidden_size ffn_dim n_inner
    num_experts num_local_experts n_routed_experts moe_num_experts moe_intermediate_size
    expert_ffn_hidden_size shared_expert_intermediate_size n_shared_experts first_k_dense_replace
    mlp_only_layers decoder_sparse_step interleave_moe_layer_step
    kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim
    layer_types sliding_window sliding_window_pattern attention_chunk_size use_sliding_window
    max_window_layers max_position_embeddings n_positions max_seq_len seq_length max_sequence_length
    quantization_config compression_config quant_method bits w_bit num_bits group_size load_in_4bit
    load_in_8bit config_groups group_0 weights
    """.split()  # noqa: SIM905 (a list of seventy lines says less)
)
