"""LangChain's own standard tests for chat models, with the parameters that its users set. Run with pytest."""

import os

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestStandard(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict:
        sampling = {"temperature": 0, "top_p": 0.9, "max_tokens": 200, "presence_penalty": 0.1, "seed": 7}
        return {"model": os.environ["CLIENT_MODEL"], "stream_usage": True, **sampling}

    @property
    def supports_image_inputs(self) -> bool:
        return False  # its pictures are fetched from elsewhere
