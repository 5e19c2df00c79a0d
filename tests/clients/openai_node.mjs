// The official client for Node: chat, streams, tools, structured output, responses, files, errors.
import assert from "node:assert";
import OpenAI, { toFile } from "openai";

const model = process.env.CLIENT_MODEL;
const client = new OpenAI();
const SAID = "The capital is Paris.";
const messages = [{ role: "user", content: "What is the capital of France?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];

const checks = {
  async chat() {
    const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
    assert.equal(data.choices[0].message.content, SAID);
    assert.equal(response.headers.get("x-request-id"), "req_clients");
  },
  async streamed() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      assert(!("usage" in chunk));
      text += chunk.choices[0].delta.content ?? "";
    }
    assert.equal(text, SAID);
  },
  async "streamed usage"() {
    const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
    assert.equal((await stream.totalUsage()).total_tokens, 17);
  },
  async "tool runner"() {
    const heard = [];
    const runner = client.chat.completions.runTools({
      model, messages, stream: true,
      tools: [{ type: "function", function: { name: "weather", parameters, parse: JSON.parse, function: (a) => heard.push(a.city) && "rain" } }],
    });
    assert.equal(await runner.finalContent(), SAID);
    assert.deepEqual(heard, ["Paris"]);
  },
  async "tool calls"() {
    const answer = await client.chat.completions.create({ model, messages, tools });
    assert.equal(answer.choices[0].message.tool_calls[0].function.arguments, '{"city": "Paris"}');
  },
  async responses() {
    assert.equal((await client.responses.create({ model, input: "hi" })).output_text, SAID);
    const stream = client.responses.stream({ model, input: "hi" });
    assert.equal((await stream.finalResponse()).output_text, SAID);
  },
  async files() {
    const file = await client.files.create({ file: await toFile(Buffer.alloc(300_000), "a.bin"), purpose: "batch" });
    assert.equal(file.bytes, 300_000);
  },
  async speech() {
    const sound = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "hi" });
    assert.equal((await sound.arrayBuffer()).byteLength, 25_600);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
    assert(Math.abs(answer.data[1].embedding[2] - 0.3) < 1e-6);
  },
  async errors() {
    await assert.rejects(client.chat.completions.create({ model: "gpt-none", messages }), (error) =>
      error instanceof OpenAI.NotFoundError && error.code === "model_not_found" && error.requestID === "req_clients");
  },
  async abort() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const _ of stream) break;
    assert(stream.controller.signal.aborted);
  },
};

for (const [claim, test] of Object.entries(checks)) {
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (problem) {
    console.log(`FAIL ${claim}: ${String(problem).slice(0, 300).replaceAll("\n", " ")}`);
  }
}
