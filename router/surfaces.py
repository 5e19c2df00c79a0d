"""The endpoints of OpenAI's that are routed, and how each is read."""

from __future__ import annotations

from router.planning import Surface
from router.policy.features import read_chat
from router.sse import ChatStream

CHAT = Surface(b"/chat/completions", read_chat, True, lambda strip: ChatStream(strip_usage=strip))
COMPLETIONS = CHAT
RESPONSES = CHAT
