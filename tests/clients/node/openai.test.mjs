// The `openai` package for Node: chat, streams, responses, errors.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { getWeather, heard, question, reasoner, schema, scripted, thought, usual } from "./facts.mjs";

const client = new OpenAI({ baseURL: scripted.base, apiKey: "none", maxRetries: 0 });
const model = scripted.model;
const messages = [{ role: "user", content: usual }];
const described = { name: "get_weather", description: "The weather of a city.", parameters: schema };
const tools = [{ type: "function", function: described }];

test("a whole reply", async () => {
  const reply = await client.chat.completions.create({ model, messages });
  const [choice] = reply.choices;
  assert.equal(choice.message.content, usual);
  assert.equal(choice.message.reasoning_content, thought);
  assert.equal(choice.finish_reason, "stop");
  assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
});

test("a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  let content = "";
  let reasoning = "";
  let last;
  for await (const chunk of stream) {
    content += chunk.choices[0].delta.content ?? "";
    reasoning += chunk.choices[0].delta.reasoning_content ?? "";
    last = chunk;
  }
  assert.equal(content, usual);
  assert.equal(reasoning, thought);
  assert.equal(last.choices[0].finish_reason, "stop");
  assert.ok(last.usage.completion_tokens > 0);
});

test("the stream helper puts the whole reply together", async () => {
  const final = await client.chat.completions.stream({ model, messages }).finalChatCompletion();
  assert.equal(final.choices[0].message.content, usual);
});

for (const stream of [false, true]) {
  test(`the tool runner of the package, ${stream ? "streamed" : "whole"}`, async () => {
    const runner = client.chat.completions.runTools({
      model,
      stream,
      messages: [{ role: "user", content: question }],
      tools: [
        { type: "function", function: { ...described, function: getWeather, parse: JSON.parse } },
      ],
    });
    assert.equal(await runner.finalContent(), heard);
    const roles = runner.messages.map((message) => message.role);
    assert.deepEqual(roles, ["user", "assistant", "tool", "tool", "assistant"]);
  });
}

test("a strict tool that must be called", async () => {
  const reply = await client.chat.completions.create({
    model,
    messages: [{ role: "user", content: question }],
    tools: [{ type: "function", function: { ...described, strict: true } }],
    tool_choice: "required",
    reasoning_effort: "none",
  });
  const calls = reply.choices[0].message.tool_calls;
  assert.deepEqual(
    calls.map((call) => JSON.parse(call.function.arguments)),
    [{ city: "Paris" }, { city: "Oslo" }],
  );
});

test("parse gives an object that a zod schema describes", async () => {
  const local = new OpenAI({ baseURL: reasoner.base, apiKey: "none", maxRetries: 0 });
  const reply = await local.chat.completions.parse({
    model: reasoner.model,
    messages: [{ role: "user", content: "What is 47 + 85?" }],
    response_format: zodResponseFormat(z.object({ even: z.boolean() }), "verdict"),
  });
  assert.equal(typeof reply.choices[0].message.parsed.even, "boolean");
});

test("responses: whole, streamed, continued", async () => {
  const first = await client.responses.create({ model, input: usual });
  assert.equal(first.output_text, usual);
  assert.deepEqual(
    first.output.map((item) => item.type),
    ["reasoning", "message"],
  );
  let text = "";
  const stream = await client.responses.create({ model, input: usual, stream: true });
  for await (const event of stream) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, usual);
  const next = await client.responses.create({
    model,
    input: "and on",
    previous_response_id: first.id,
  });
  assert.equal(next.output_text, "and on");
  assert.ok(next.usage.input_tokens > first.usage.input_tokens);
});

test("responses: a whole tool loop, streamed", async () => {
  const input = [{ role: "user", content: question }];
  const flat = [{ type: "function", strict: true, ...described }];
  const asked = await client.responses.stream({ model, input, tools: flat }).finalResponse();
  input.push(...asked.output);
  for (const call of asked.output.filter((item) => item.type === "function_call")) {
    const output = getWeather(JSON.parse(call.arguments));
    input.push({ type: "function_call_output", call_id: call.call_id, output });
  }
  const reply = await client.responses.create({ model, input, tools: flat });
  assert.equal(reply.output_text, heard);
});

test("errors have their classes", async () => {
  const ask = (fields) => client.chat.completions.create({ model, messages, ...fields });
  await assert.rejects(ask({ temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(ask({ model: "none" }), OpenAI.NotFoundError);
});

test("a stream that is aborted", async () => {
  const slow = [{ role: "user", content: `SLOWLY ${"word ".repeat(300)}` }];
  const stream = await client.chat.completions.create({ model, messages: slow, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  assert.ok(stream.controller.signal.aborted);
});
