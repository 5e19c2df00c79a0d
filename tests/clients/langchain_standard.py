"""LangChain's own standard tests for chat models, on ChatOpenAI. Run with pytest."""

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
        return {"model": os.environ["CLIENT_MODEL"], "stream_usage": True}

    @property
    def supports_image_inputs(self) -> bool:
        return False  # its pictures are fetched from elsewhere
