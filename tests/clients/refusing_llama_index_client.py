"""LlamaIndex over chat completions and over responses, with the parameters that its users set; a temperature always."""

from functools import partial

from checking import ANSWER, BASE_URL, MODEL, QUESTION, check
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from usual import ALONE, CAPITAL, TOGETHER, Capital

messages = [ChatMessage(role="user", content=QUESTION)]


def metadata_of_known_model(self):
    """LlamaIndex looks a model's context window up in a table of names, which no gateway's names are in."""
    metadata = OpenAI(model="gpt-4o").metadata
    metadata.model_name = self.model
    return metadata


class Chat(OpenAI):
    metadata = property(metadata_of_known_model)


class Responses(OpenAIResponses):
    metadata = property(metadata_of_known_model)


def chat_model(**fields):
    named_options = {
        name: fields.pop(name) for name in ("max_tokens", "temperature", "reasoning_effort") if name in fields
    }
    return Chat(model=MODEL, api_base=BASE_URL, additional_kwargs=fields, **named_options)


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


def chat(model) -> None:
    assert model.chat(messages).message.content == ANSWER


def stream(model) -> None:
    assert "".join(part.delta or "" for part in model.stream_chat(messages)) == ANSWER


def alone(name, value) -> None:
    chat(chat_model(**{name: value}))


def logprobs() -> None:
    chat(Chat(model=MODEL, api_base=BASE_URL, logprobs=True, top_logprobs=3))


async def agent(model) -> None:
    workflow = FunctionAgent(tools=[FunctionTool.from_defaults(weather)], llm=model, streaming=False)
    assert str(await workflow.run(QUESTION)) == ANSWER


async def streamed_agent(model) -> None:
    workflow = FunctionAgent(tools=[FunctionTool.from_defaults(weather)], llm=model)
    assert str(await workflow.run(QUESTION)) == ANSWER


def tools(model) -> None:
    options = {"user_msg": QUESTION, "allow_parallel_tool_calls": False}
    (call,) = model.get_tool_calls_from_response(
        model.chat_with_tools([FunctionTool.from_defaults(weather)], **options)
    )
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})


def typed(model) -> None:
    assert model.as_structured_llm(Capital).chat(messages).raw == CAPITAL


def retrieval(model) -> None:
    passages = [Document(text="Paris lies on the Seine. " * 30), Document(text="France has 18 regions. " * 30)]
    index = VectorStoreIndex.from_documents(passages, embed_model=MockEmbedding(embed_dim=8))
    assert str(index.as_query_engine(llm=model).query(QUESTION)) == ANSWER


for name, value in ALONE.items():
    if name != "logprobs":
        check(name, partial(alone, name, value))
check("logprobs", logprobs)
for effort in ("minimal", "medium"):
    check(f"reasoning_effort {effort}", partial(alone, "reasoning_effort", effort))
check("no parameters", lambda: chat(Chat(model=MODEL, api_base=BASE_URL)))
for kind, model in {
    "chat": chat_model(**TOGETHER),
    "responses": Responses(model=MODEL, api_base=BASE_URL, temperature=0, top_p=0.9, max_output_tokens=200),
}.items():
    for test in (chat, stream, agent, streamed_agent, tools, typed, retrieval):
        check(f"{kind}: {test.__name__}", partial(test, model))
