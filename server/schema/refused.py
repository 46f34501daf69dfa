"""Fields that are known but not served: refused by name, unless the value asks for nothing."""

from dataclasses import dataclass

from server.errors import bad_request, shown


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a field is refused, and the values besides null that change nothing."""

    why: str
    harmless: tuple[object, ...] = ()


NO_CONSTRAINTS = "output that follows a grammar or a schema is not supported"
NO_TRANSFER = "caches are not moved between servers here"
NO_MEDIA = "this server takes and gives text only"
NO_TEMPLATE = "templates come from the operator, never from a request"

REFUSED: dict[str, Refused] = {
    "suffix": Refused("text cannot be filled in before a suffix; send the prompt alone", ("",)),
    "use_beam_search": Refused("beam search is not supported; use n with a temperature", (False,)),
    "length_penalty": Refused("it belongs to beam search, which is not supported", (1, 1.0)),
    "prompt_embeds": Refused("prompts are text or token ids, not embeddings"),
    "logprob_token_ids": Refused("log probabilities of chosen tokens are not supported; use logprobs"),
    "structured_outputs": Refused(NO_CONSTRAINTS),
    "guided_json": Refused(NO_CONSTRAINTS),
    "guided_regex": Refused(NO_CONSTRAINTS),
    "guided_choice": Refused(NO_CONSTRAINTS),
    "guided_grammar": Refused(NO_CONSTRAINTS),
    "repetition_detection": Refused("loops are not detected; use a repetition or frequency penalty"),
    "thinking_token_budget": Refused("reasoning is not told apart from the answer; use max_tokens", (-1,)),
    "reasoning_effort": Refused("pass it in chat_template_kwargs if the model's template reads it"),
    "include_reasoning": Refused("reasoning is not told apart from the answer", (True,)),
    "spaces_between_special_tokens": Refused("special tokens are never joined by spaces", (True,)),
    "return_token_offsets": Refused(
        "token offsets are not returned; use /tokenize with return_token_strs", (False,)
    ),
    "return_prompt_text": Refused("use /tokenize and /detokenize to see the rendered prompt", (False,)),
    "return_assistant_tokens_mask": Refused("no mask is made", (False,)),
    "return_hidden_states": Refused("hidden states never leave the engine", (False,)),
    "routed_experts_prompt_start": Refused("expert routing is not traced", (0,)),
    "kv_transfer_params": Refused(NO_TRANSFER),
    "ec_transfer_params": Refused(NO_TRANSFER),
    "vllm_xargs": Refused("there are no extension arguments"),
    "chat_template": Refused(NO_TEMPLATE),
    "media_io_kwargs": Refused(NO_MEDIA),
    "mm_processor_kwargs": Refused(NO_MEDIA),
    "audio": Refused(NO_MEDIA),
    "modalities": Refused(NO_MEDIA, (["text"],)),
    "prediction": Refused("predicted outputs are not supported"),
    "web_search_options": Refused("the server does not search the web"),
    "parallel_tool_calls": Refused("calls come back as the model writes them, one or several", (True,)),
    "functions": Refused("functions are deprecated; use tools"),
    "function_call": Refused("function_call is deprecated; use tool_choice", ("none", "auto")),
    "verbosity": Refused("ask for it in the messages", ("medium",)),
    "store": Refused("answers are not stored", (False,)),
    "service_tier": Refused("there is one tier of service", ("auto", "default")),
    "moderation": Refused("inputs are not moderated"),
    "lora_path": Refused("adapters are not supported"),
}


def drop_refused(fields: dict[str, object]) -> None:
    """Take refused names out of `fields`. Raises ApiError (400) where the value would change the answer."""
    for name in REFUSED.keys() & fields.keys():
        value, rule = fields.pop(name), REFUSED[name]
        if value is None or any(value == same and type(value) is type(same) for same in rule.harmless):
            continue
        accepted = " or ".join(["null", *map(shown, rule.harmless)])
        message = f"{name}: {shown(value)} is not supported: {rule.why}; accepted: {accepted}"
        raise bad_request(message, name, "unsupported_field")
