// Asks with OpenAI's SDK for Node, plain, streamed and by its helper; prints what it got as JSON.
import OpenAI from "openai";

const [baseURL, apiKey, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const asked = { model: "chat", messages: [{ role: "user", content: question }] };

const plain = (await client.chat.completions.create(asked)).choices[0].message;
const streamed = [];
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  for (const choice of chunk.choices) if (choice.delta.content) streamed.push(choice.delta.content);
}
const helped = await client.chat.completions.stream(asked).finalContent();
let refused = null;
try {
  await client.chat.completions.create({ ...asked, rag: { collections: ["nobody"] } });
} catch (error) {
  refused = error.constructor.name;
}
console.log(
  JSON.stringify({ plain: plain.content, annotations: plain.annotations, streamed, helped, refused }),
);
