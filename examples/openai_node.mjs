// The openai client for Node. Needs: npm install openai. The address and the key are OPENAI_BASE_URL and OPENAI_API_KEY.
import OpenAI from "openai";

const client = new OpenAI();
const messages = [{ role: "user", content: "What is the capital of France?" }];

const { data, response } = await client.chat.completions.create({ model: "auto", messages }).withResponse();
console.log(response.headers.get("x-router-model"), "because", response.headers.get("x-router-reason"));
console.log(data.choices[0].message.content);
