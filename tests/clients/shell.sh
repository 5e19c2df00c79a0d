#!/usr/bin/env bash
# The `llm` command and curl, as people type them. LLM is the command; CLIENT_MODEL and OPENAI_BASE_URL as for the others.
said="The capital is Paris."
check() { # claim, expected, got
    if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAIL $1: got $(printf %s "$3" | head -c 200 | tr '\n' ' ')"; fi
}
chat="$OPENAI_BASE_URL/chat/completions"
body='{"model":"'$CLIENT_MODEL'","messages":[{"role":"user","content":"What is the capital of France?"}]'
if [ "$1" = curl ]; then
    got=$(curl -s "$chat" -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" -d "$body}")
    check "chat" "$said" "$(printf %s "$got" | python3 -c 'import json,sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])')"
    got=$(curl -sN "$chat" -H "Content-Type: application/json" -d "$body,\"stream\":true}" | grep -c '^data: ')
    check "stream: eight events" "8" "$got"
    check "head of the answer" "200" "$(curl -s -o /dev/null -w '%{http_code}' -X POST "$chat" -d "$body}")"
    check "expect: 100-continue" "200" \
        "$(printf '%s,"x":"%02000000d"}' "$body" 0 | curl -s -o /dev/null -w '%{http_code}' -H 'Expect: 100-continue' "$chat" -d @-)"
    check "chunked upload" "200" \
        "$(echo "$body}" | curl -s -o /dev/null -w '%{http_code}' -H 'Transfer-Encoding: chunked' "$chat" -d @-)"
    check "http/1.0" "200" "$(curl -s -0 -o /dev/null -w '%{http_code}' "$chat" -d "$body}")"
    check "multipart" '3000' "$(head -c 3000 /dev/zero | curl -s "$OPENAI_BASE_URL/files" -F purpose=batch -F file=@- |
        python3 -c 'import json,sys; print(json.load(sys.stdin)["bytes"])')"
    check "binary answer" "25600" "$(curl -s "$OPENAI_BASE_URL/audio/speech" -d '{}' | wc -c | tr -d ' ')"
    check "models" "0" "$(curl -s "$OPENAI_BASE_URL/models" | grep -q gpt-4o; echo $?)"
else
    printf -- '- model_id: routed\n  model_name: %s\n  api_base: %s\n' "$CLIENT_MODEL" "$OPENAI_BASE_URL" \
        > "$LLM_USER_PATH/extra-openai-models.yaml"
    check "prompt, streamed" "$said" "$("$LLM" -m routed --key x 'What is the capital of France?')"
    check "prompt, whole" "$said" "$("$LLM" -m routed --key x --no-stream 'What is the capital of France?')"
    check "conversation" "$said" "$("$LLM" -m routed --key x -c 'And of Italy?')"
    check "usage is logged" "12" "$("$LLM" logs -n 1 --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["input_tokens"])')"
fi
