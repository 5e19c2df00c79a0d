// The Vercel AI SDK: text, streams, tools, objects and embeddings, over chat completions and over responses.
import assert from "node:assert";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const SAID = "The capital is Paris.";
const baseURL = process.env.OPENAI_BASE_URL;
const openai = createOpenAI({ baseURL });
const compatible = createOpenAICompatible({ name: "router", baseURL, apiKey: process.env.OPENAI_API_KEY });
const prompt = "What is the capital of France?";
const name = process.env.CLIENT_MODEL;
const models = { chat: openai.chat(name), responses: openai.responses(name), compatible: compatible(name) };

const checks = {};
for (const [kind, model] of Object.entries(models)) {
  checks[`${kind}: text`] = async () => {
    const result = await generateText({ model, prompt });
    assert.equal(result.text, SAID);
    assert.equal(result.usage.inputTokens, 12);
  };
  checks[`${kind}: stream`] = async () => {
    let text = "";
    const result = streamText({ model, prompt });
    for await (const piece of result.textStream) text += piece;
    assert.equal(text, SAID);
  };
  checks[`${kind}: tools`] = async () => {
    const heard = [];
    const weather = tool({
      description: "d",
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => { heard.push(city); return "rain"; },
    });
    const result = await generateText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(3) });
    assert.equal(result.text, SAID);
    assert.deepEqual(heard, ["Paris"]);
  };
  if (kind !== "compatible") checks[`${kind}: object`] = async () => {
    const schema = z.object({ city: z.string(), population: z.number().int() });
    const { object } = await generateObject({ model, prompt, schema });
    assert.deepEqual(object, { city: "Paris", population: 3 });
  };
}
checks.embeddings = async () => {
  const { embeddings } = await embedMany({ model: openai.embedding("text-embedding-3-small"), values: ["a", "b"] });
  assert.equal(embeddings.length, 2);
};

for (const [claim, test] of Object.entries(checks)) {
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (problem) {
    console.log(`FAIL ${claim}: ${String(problem).slice(0, 300).replaceAll("\n", " ")}`);
  }
}
