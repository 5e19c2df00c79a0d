// The Vercel AI SDK. Needs: npm install ai @ai-sdk/openai. The address and the key are OPENAI_BASE_URL and OPENAI_API_KEY.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";

const router = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const prompt = "What is the capital of France?";

const { text, response } = await generateText({ model: router.chat("auto"), prompt });
console.log(response.headers["x-router-model"], "because", response.headers["x-router-reason"]);
console.log(text);

for await (const piece of streamText({ model: router.chat("auto-cost"), prompt }).textStream) process.stdout.write(piece);
console.log();
