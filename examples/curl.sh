#!/usr/bin/env bash
# curl. The address and the key are OPENAI_BASE_URL and OPENAI_API_KEY.
set -euo pipefail

ask() {
    curl --silent --show-error --fail-with-body "$@" \
        --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
        --data '{"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
    echo
}

# The answer, with the headers that explain the decision:
ask --include "$OPENAI_BASE_URL/chat/completions"
# The decision alone; nothing is sent to a model:
ask "${OPENAI_BASE_URL%/v1}/router/decision"
