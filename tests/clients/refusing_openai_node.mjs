// The official client for Node, chat and responses, with the parameters that its users set.
import assert from "node:assert";
import OpenAI from "openai";

const model = process.env.CLIENT_MODEL;
const client = new OpenAI();
const SAID = "The capital is Paris.";
const question = "What is the capital of France?";
const messages = [{ role: "user", content: question }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const properties = { city: { type: "string" }, population: { type: "integer" } };
const schema = { type: "object", properties, required: ["city", "population"], additionalProperties: false };
const alone = {
  max_tokens: 200, temperature: 0, top_p: 0.9, presence_penalty: 0.1, frequency_penalty: 0.1, logprobs: true,
  logit_bias: { 50256: -100 }, stop: ["END"], seed: 7, user: "someone", reasoning_effort: "minimal",
};
const { max_tokens, temperature, top_p, presence_penalty, stop, seed } = alone;
const together = { max_tokens, temperature, top_p, presence_penalty, stop, seed };
const responding = { max_output_tokens: 200, temperature, top_p };

const checks = {
  async together() {
    const answer = await client.chat.completions.create({ model, messages, ...together });
    assert.equal(answer.choices[0].message.content, SAID);
  },
  async streamed() {
    const given = { model, messages, stream_options: { include_usage: true }, ...together };
    const stream = client.chat.completions.stream(given);
    assert.equal(await stream.finalContent(), SAID);
    assert((await stream.totalUsage()).total_tokens > 0);
  },
  async n() {
    const answer = await client.chat.completions.create({ model, messages, n: 2, temperature: 0.7 });
    assert.equal(answer.choices.length, 2);
  },
  async "tool runner"() {
    const heard = [];
    const weather = { name: "weather", parameters, parse: JSON.parse, function: (a) => heard.push(a.city) && "rain" };
    const runner = client.chat.completions.runTools({
      model, messages, stream: true, tools: [{ type: "function", function: weather }], parallel_tool_calls: false, ...together,
    });
    assert.equal(await runner.finalContent(), SAID);
    assert.deepEqual(heard, ["Paris"]);
  },
  async "tools with an effort"() {
    const given = { model, tools, reasoning_effort: "medium", temperature };
    const { message } = (await client.chat.completions.create({ ...given, messages })).choices[0];
    const said = [...messages, message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "rain" }];
    assert.equal((await client.chat.completions.create({ ...given, messages: said })).choices[0].message.content, SAID);
  },
  async response_format() {
    const response_format = { type: "json_schema", json_schema: { name: "capital", schema, strict: true } };
    const answer = await client.chat.completions.parse({ model, messages, response_format, temperature, max_tokens });
    assert.deepEqual(answer.choices[0].message.parsed, { city: "Paris", population: 3 });
  },
  async responses() {
    assert.equal((await client.responses.create({ model, input: question, ...responding })).output_text, SAID);
  },
  async "responses: default values"() {
    const answer = await client.responses.create({ model, input: question, temperature: 1, top_p: 1 });
    assert.equal(answer.output_text, SAID);
  },
  async "responses: effort"() {
    const reasoning = { effort: "minimal" };
    assert.equal((await client.responses.create({ model, input: question, reasoning })).output_text, SAID);
  },
  async "responses: streamed"() {
    const stream = client.responses.stream({ model, input: question, ...responding });
    assert.equal((await stream.finalResponse()).output_text, SAID);
  },
  async "responses: tools"() {
    const given = { model, tools: [{ type: "function", name: "weather", parameters, strict: false }], ...responding };
    const { output: [call] } = await client.responses.create({ ...given, input: messages });
    const input = [...messages, call, { type: "function_call_output", call_id: call.call_id, output: "rain" }];
    assert.equal((await client.responses.create({ ...given, input })).output_text, SAID);
  },
  async "responses: structured"() {
    const text = { format: { type: "json_schema", name: "capital", schema, strict: true } };
    const answer = await client.responses.parse({ model, input: question, text, ...responding });
    assert.deepEqual(answer.output_parsed, { city: "Paris", population: 3 });
  },
};
for (const [name, value] of Object.entries(alone)) checks[name] = async () => {
  const answer = await client.chat.completions.create({ model, messages, [name]: value });
  assert.equal(answer.choices[0].message.content, SAID);
};

for (const [claim, test] of Object.entries(checks)) {
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (problem) {
    console.log(`FAIL ${claim}: ${String(problem).slice(0, 300).replaceAll("\n", " ")}`);
  }
}
