#!/usr/bin/env bash
# The `llm` command and curl with the parameters that people type. The environment is that of shell.sh.
said="The capital is Paris."
question="What is the capital of France?"
check() { # claim, expected, got
    if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAIL $1: got $(printf %s "$3" | head -c 200 | tr '\n' ' ')"; fi
}
ask() { # path, the rest of a body
    curl -s "$OPENAI_BASE_URL/$1" -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
        -d '{"model":"'"$CLIENT_MODEL"'",'"$2"'}'
}
chat() { # the rest of a body; what is said
    ask chat/completions '"messages":[{"role":"user","content":"'"$question"'"}],'"$1" |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])' 2>&1 | tail -n 1
}
responses() { # the rest of a body; what is said
    ask responses '"input":"'"$question"'",'"$1" |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["output"][0]["content"][0]["text"])' 2>&1 | tail -n 1
}
if [ "$1" = curl ]; then
    together='"max_tokens":200,"temperature":0,"top_p":0.9,"presence_penalty":0.1,"stop":["END"],"seed":7'
    for each in '"max_tokens":200' '"temperature":0' '"top_p":0.9' '"presence_penalty":0.1' '"frequency_penalty":0' '"n":2' \
        '"logit_bias":{"50256":-100}' '"logprobs":true' '"stop":"END"' '"user":"someone"' '"reasoning_effort":"minimal"' "$together"; do
        check "$each" "$said" "$(chat "$each")"
    done
    stream='"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},'
    check "streamed: nine events" "9" "$(ask chat/completions "$stream$together" | grep -c '^data: ')"
    for each in '"max_output_tokens":200' '"temperature":0' '"temperature":1' '"top_p":0.9' '"reasoning":{"effort":"minimal"}'; do
        check "responses: $each" "$said" "$(responses "$each")"
    done
else
    printf -- '- model_id: routed\n  model_name: %s\n  api_base: %s\n  supports_tools: true\n  supports_schema: true\n  reasoning: true\n' \
        "$CLIENT_MODEL" "$OPENAI_BASE_URL" > "$LLM_USER_PATH/extra-openai-models.yaml"
    ask_llm() { "$LLM" -m routed --key x "$@" "$question" 2>&1 | tail -n 1; }
    for each in "max_tokens 200" "temperature 0" "top_p 0.9" "presence_penalty 0.1" "frequency_penalty 0.1" "stop END" "seed 7" \
        "reasoning_effort high"; do
        # shellcheck disable=SC2086  # a name and a value
        check "$each" "$said" "$(ask_llm -o $each)"
    done
    together=(-o max_tokens 200 -o temperature 0 -o top_p 0.9 -o seed 7)
    check "together, streamed" "$said" "$(ask_llm "${together[@]}")"
    check "together, whole" "$said" "$(ask_llm --no-stream "${together[@]}")"
    check "tools" "$said" "$(ask_llm --no-stream -T llm_version "${together[@]}")"
    check "tools, streamed" "$said" "$(ask_llm -T llm_version "${together[@]}")"
    check "schema" '{"city": "Paris", "population": 3}' "$(ask_llm --schema 'city, population int' "${together[@]}")"
fi
