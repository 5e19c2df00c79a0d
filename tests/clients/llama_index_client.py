"""LlamaIndex: complete, chat, streams, tools, typed output, and a query over retrieved passages."""

from checking import ANSWER, BASE_URL, MODEL, QUESTION, check, check_routed
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel


class Capital(BaseModel):
    city: str
    population: int


class GatewayOpenAI(OpenAI):
    """LlamaIndex looks a model's context window up in a table of names, which no gateway's names are in."""

    @property
    def metadata(self):
        metadata = OpenAI(model="gpt-4o").metadata
        metadata.model_name = self.model
        return metadata


model = GatewayOpenAI(model=MODEL, api_base=BASE_URL)
messages = [ChatMessage(role="user", content=QUESTION)]


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


def complete() -> None:
    assert model.complete(QUESTION).text == ANSWER


def chat() -> None:
    assert model.chat(messages).message.content == ANSWER


def stream() -> None:
    assert "".join(part.delta or "" for part in model.stream_chat(messages)) == ANSWER


async def asynchronous() -> None:
    parts = await model.astream_chat(messages)
    assert "".join([part.delta or "" async for part in parts]) == ANSWER


def tools() -> None:
    answer = model.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg=QUESTION)
    (call,) = model.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})


def typed() -> None:
    assert model.as_structured_llm(Capital).chat(messages).raw == Capital(city="Paris", population=3)


def retrieval() -> None:
    passages = [Document(text="Paris lies on the Seine. " * 30), Document(text="France has 18 regions. " * 30)]
    index = VectorStoreIndex.from_documents(passages, embed_model=MockEmbedding(embed_dim=8))
    assert str(index.as_query_engine(llm=model).query(QUESTION)) == ANSWER


for test in (complete, chat, stream, asynchronous, tools, typed):
    check(test.__name__, test)
check_routed("retrieval", retrieval)
