// The Vercel AI SDK over chat completions, over responses and as "openai-compatible", with the settings its users make.
import assert from "node:assert";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const SAID = "The capital is Paris.";
const baseURL = process.env.OPENAI_BASE_URL;
const openai = createOpenAI({ baseURL });
const compatible = createOpenAICompatible({ name: "router", baseURL, apiKey: process.env.OPENAI_API_KEY, includeUsage: true });
const prompt = "What is the capital of France?";
const name = process.env.CLIENT_MODEL;
const models = { chat: openai.chat(name), responses: openai.responses(name), compatible: compatible(name) };
const alone = {
  maxOutputTokens: 200, temperature: 0, topP: 0.9, presencePenalty: 0.1, frequencyPenalty: 0.1, stopSequences: ["END"], seed: 7,
};
const { maxOutputTokens, temperature, topP } = alone;
const together = { maxOutputTokens, temperature, topP, maxRetries: 0 };
const options = {
  reasoningEffort: "minimal", logprobs: true, parallelToolCalls: false, user: "someone", logitBias: { 50256: -100 },
};

const checks = {};
for (const [kind, model] of Object.entries(models)) {
  for (const [setting, value] of Object.entries(alone)) checks[`${kind}: ${setting}`] = async () => {
    assert.equal((await generateText({ model, prompt, maxRetries: 0, [setting]: value })).text, SAID);
  };
  for (const [option, value] of Object.entries(options)) checks[`${kind}: ${option}`] = async () => {
    const providerOptions = { [kind === "compatible" ? "router" : "openai"]: { [option]: value } };
    assert.equal((await generateText({ model, prompt, maxRetries: 0, providerOptions })).text, SAID);
  };
  checks[`${kind}: text, together`] = async () => {
    assert.equal((await generateText({ model, prompt, ...together })).text, SAID);
  };
  checks[`${kind}: stream, together`] = async () => {
    let text = "";
    const result = streamText({ model, prompt, ...together });
    for await (const piece of result.textStream) text += piece;
    assert.equal(text, SAID);
    assert((await result.usage).totalTokens > 0);
  };
  checks[`${kind}: tools, together`] = async () => {
    const heard = [];
    const execute = async ({ city }) => { heard.push(city); return "rain"; };
    const weather = tool({ description: "d", inputSchema: z.object({ city: z.string() }), execute });
    const result = await generateText({ model, prompt, tools: { weather }, stopWhen: stepCountIs(3), ...together });
    assert.equal(result.text, SAID);
    assert.deepEqual(heard, ["Paris"]);
  };
  if (kind !== "compatible") checks[`${kind}: object, together`] = async () => {
    const schema = z.object({ city: z.string(), population: z.number().int() });
    const { object } = await generateObject({ model, prompt, schema, ...together });
    assert.deepEqual(object, { city: "Paris", population: 3 });
  };
}

for (const [claim, test] of Object.entries(checks)) {
  try {
    await test();
    console.log(`ok ${claim}`);
  } catch (problem) {
    console.log(`FAIL ${claim}: ${String(problem).slice(0, 300).replaceAll("\n", " ")}`);
  }
}
