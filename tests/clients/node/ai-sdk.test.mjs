// Vercel's AI SDK: `ai` with `@ai-sdk/openai-compatible`.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  Output,
  generateObject,
  generateText,
  isStepCount,
  streamText,
  tool,
} from "ai";
import { z } from "zod";

import { getWeather, heard, question, reasoner, scripted, thought, usual } from "./facts.mjs";

const provider = (server, options = {}) =>
  createOpenAICompatible({ name: "ingle", baseURL: server.base, apiKey: "none", ...options });
const model = provider(scripted).chatModel(scripted.model);
const once = { maxRetries: 0 };
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => getWeather(input),
  }),
};

test("generateText, with the reasoning", async () => {
  const reply = await generateText({ model, prompt: usual, ...once });
  assert.equal(reply.text, usual);
  assert.equal(reply.finalStep.reasoningText, thought);
  assert.equal(reply.finishReason, "stop");
  assert.equal(reply.usage.totalTokens, reply.usage.inputTokens + reply.usage.outputTokens);
  assert.ok(reply.usage.outputTokenDetails.reasoningTokens > 0);
});

test("streamText, with reasoning parts", async () => {
  const kinds = {};
  const texts = { "reasoning-delta": "", "text-delta": "" };
  for await (const part of streamText({ model, prompt: usual, ...once }).stream) {
    assert.notEqual(part.type, "error", String(part.error));
    kinds[part.type] = (kinds[part.type] ?? 0) + 1;
    if (part.type in texts) texts[part.type] += part.text;
  }
  assert.deepEqual(texts, { "reasoning-delta": thought, "text-delta": usual });
  for (const kind of ["reasoning-start", "reasoning-end", "text-start", "text-end", "finish"]) {
    assert.equal(kinds[kind], 1, kind);
  }
});

test("a whole tool loop", async () => {
  const reply = await generateText({
    model,
    prompt: question,
    tools,
    stopWhen: isStepCount(4),
    ...once,
  });
  assert.equal(reply.text, heard);
  assert.equal(reply.steps.length, 2);
  assert.deepEqual(
    reply.steps[0].toolCalls.map((call) => call.input),
    [{ city: "Paris" }, { city: "Oslo" }],
  );
  assert.equal(reply.steps[0].finishReason, "tool-calls");
});

test("a streamed tool loop", async () => {
  const result = streamText({ model, prompt: question, tools, stopWhen: isStepCount(4), ...once });
  const results = [];
  for await (const part of result.stream) {
    assert.notEqual(part.type, "error", String(part.error));
    if (part.type === "tool-result") results.push(part.output);
  }
  assert.equal(results.length, 2);
  assert.equal(await result.text, heard);
});

const even = z.object({ even: z.boolean() });

test("an object under a schema that the server enforces", async () => {
  const strict = provider(reasoner, { supportsStructuredOutputs: true }).chatModel(reasoner.model);
  const prompt = "What is 47 + 85?";
  const { object } = await generateObject({ model: strict, schema: even, prompt, ...once });
  assert.equal(typeof object.even, "boolean");
  const output = Output.object({ schema: even });
  const reply = await generateText({ model: strict, output, prompt, ...once });
  assert.equal(typeof reply.output.even, "boolean");
});

// without supportsStructuredOutputs the package sends no schema, and the prompt must speak of JSON
test("an object in JSON mode", async () => {
  const { object } = await generateObject({
    model,
    schema: even,
    prompt: '{"even": true, "form": "json"}',
    ...once,
  });
  assert.deepEqual(object, { even: true });
});

test("errors", async () => {
  const none = provider(scripted).chatModel("none");
  await assert.rejects(generateText({ model: none, prompt: usual, ...once }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.match(error.message, /No such model/);
    return true;
  });
});
